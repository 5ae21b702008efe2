"""What a network is again after somebody else had his hands in it, or another engine came."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path

import pytest
from tests.kernel.world import HOST, NEIGHBOUR, Place, World, join

from trivet.client.schema_network import PortRequest
from trivet.engine.network import namespace
from trivet.engine.network.network import Networks
from trivet.isolation import specification
from trivet.kernel import nftables, rtnetlink
from trivet.launch.operation import JoinPath
from trivet.launch.spawn import run
from trivet.store.record import Records

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]


def test_restore_after_a_flush(world: World) -> None:
    """When somebody flushed the rules, `check` says so and restoring makes published ports work again."""
    world.instance("web")
    world.publish("web", 8080)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    assert world.neighbour.ask(HOST, 8080) == "nothing"
    assert any("not loaded" in finding.problem for finding in world.networks.check())
    assert all(finding.repaired for finding in world.networks.check(repaired=True))
    assert world.networks.check() == []
    assert world.neighbour.ask(HOST, 8080) == f"web {NEIGHBOUR}"


def test_restore_after_a_deleted_bridge(world: World) -> None:
    """When somebody deleted the bridge, restoring makes it anew and puts running instances back on it."""
    web = world.instance("web")
    world.publish("web", 8080)
    rtnetlink.delete_link(world.networks.find("bridge").interface)
    assert any("is missing" in finding.problem for finding in world.networks.check())
    Networks(world.records, "test", world.base).restore(["web"])
    assert world.neighbour.ask(HOST, 8080) == f"web {NEIGHBOUR}"
    assert world.host.ask(web.address, 80).startswith("web ")
    assert world.networks.check() == []


def test_restore_when_the_subnet_was_taken_meanwhile(world: World) -> None:
    """A network that comes back to a host where its subnet is somebody else's by now takes another one."""
    before = world.networks.find("bridge")
    join(world.networks, "", "web", "netns")
    world.networks.remove_all()
    rtnetlink.create_bridge("stranger", mtu=1500, mac="02:00:00:00:00:99", alias="")
    rtnetlink.add_address("stranger", ipaddress.IPv4Interface(f"{before.gateway}/{before.subnet.rpartition('/')[2]}"))
    again = Networks(world.records, "test", world.base)
    assert any("stranger's too" in finding.problem for finding in again.check())
    again.restore([])
    assert not ipaddress.ip_network(again.find("bridge").subnet).overlaps(ipaddress.ip_network(before.subnet))
    assert again.check() == []
    web = join(again, "", "web", "netns").addresses[0]
    assert ipaddress.ip_interface(web.address) in ipaddress.ip_network(again.find("bridge").subnet)


def test_another_engine_process(world: World) -> None:
    """Addresses and ports outlive the engine; who is not running any more is disconnected, but keeps its address."""
    web, gone = world.instance("web"), world.instance("gone")
    world.publish("web", 8080)
    world.publish("gone", 8081)
    again = Networks(world.records, "test", world.base)
    again.ensure_default()
    again.restore(["web"])
    assert world.neighbour.ask(HOST, 8080) == f"web {NEIGHBOUR}"
    assert world.neighbour.ask(HOST, 8081) == "nothing"
    assert again.find("bridge").members == {"web": web.address, "gone": gone.address}
    assert not (world.base / "netns" / "gone").exists()
    assert join(again, "", "gone", "netns").addresses[0].address.startswith(f"{gone.address}/")
    again.remove_all()  # its relay may be about to start


def test_two_engines(world: World) -> None:
    """Engines on one host have bridges, subnets and tables of their own, and close their networks to one another."""
    (world.base / "o").mkdir()
    second = Networks(Records(world.base / "second.db"), "second", world.base / "o")
    second.ensure_default()
    mine, theirs = world.networks.find("bridge"), second.find("bridge")
    assert mine.interface != theirs.interface
    assert not ipaddress.ip_network(mine.subnet).overlaps(ipaddress.ip_network(theirs.subnet))
    web = world.instance("web")
    use = join(second, "", "far", "netns")
    far = Place(world._stack, "far", use.path, use.addresses[0].address.partition("/")[0])
    run([JoinPath(use.path, namespace.CLONE_NEWNET), *specification.network((use,))])
    far.serve(80)
    second.publish("far", [PortRequest(container_port=80, host_port=8081)])
    assert web.ask(far.address, 80) == "nothing"
    assert web.ask(HOST, 8081).startswith("far ")
    assert world.neighbour.ask(HOST, 8081) == f"far {NEIGHBOUR}"
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    second.remove_all()
    assert switch.read_text() == "1\n"
    assert not nftables.exists(second.table)
    assert rtnetlink.link(theirs.interface) is None
    assert world.host.ask(web.address, 80).startswith("web ")
    world.networks.remove_all()
    assert switch.read_text() == "0\n"  # the last to go
