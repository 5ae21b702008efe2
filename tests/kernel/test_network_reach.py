"""Who reaches whom. Every attack is first shown to work with the rule that stops it taken out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.kernel.world import HOST, NEIGHBOUR, World

from trivet.client.schema_network import NetworkRequest
from trivet.engine.network.why import why

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]


def test_instances_of_one_network(world: World) -> None:
    """Instances of one network reach one another under their own addresses."""
    web, other = world.instance("web"), world.instance("other")
    assert other.ask(web.address, 80) == f"web {other.address}"


def test_egress(world: World) -> None:
    """What leaves has the host's address; from an internal network nothing leaves."""
    world.networks.create(NetworkRequest(name="inner", internal=True))
    world.neighbour.serve(80)
    assert world.instance("web").ask(NEIGHBOUR, 80) == f"neighbour {HOST}"
    inside = world.instance("inside", "inner")
    assert inside.ask(NEIGHBOUR, 80) == "nothing"
    inside.sh(f"ip route add default via {world.networks.find('inner').gateway}")
    assert inside.ask(NEIGHBOUR, 80) == "nothing"


REACHABLE = {
    ("a1", "a2"): True,
    ("a1", "b1"): False,
    ("b1", "a1"): False,
    ("c1", "c2"): True,
    ("a1", "c1"): False,
    ("c1", "a1"): False,
    ("host", "a1"): True,
    ("host", "c1"): True,
    ("neighbour", "a1"): False,
    ("neighbour", "c1"): False,
}


def test_isolation_matrix(world: World) -> None:
    """Who reaches whom without anything published; c is an internal network. The forward rules are what decides."""
    for name in ("a", "b", "c"):
        world.networks.create(NetworkRequest(name=name, internal=name == "c"))
    places = {name: world.instance(name, name[0]) for name in ("a1", "a2", "b1", "c1", "c2")}
    places |= {"host": world.host, "neighbour": world.neighbour}
    for name in ("c1", "c2"):
        places[name].sh(f"ip route add default via {world.networks.find('c').gateway}")

    def found() -> dict[tuple[str, str], bool]:
        return {(one, two): places[one].ask(places[two].address, 80) != "nothing" for one, two in REACHABLE}

    with world.without("forward"), world.without("guard"):
        assert all(found().values())
    assert found() == REACHABLE


def test_loopback_port_from_outside(world: World) -> None:
    """A port published on 127.0.0.1 is the host's alone, also against a neighbour that sends to 127.0.0.1 by wire."""
    world.instance("web")
    world.publish("web", 8080, address="127.0.0.1")
    assert world.host.ask("127.0.0.1", 8080).startswith("web ")
    assert world.neighbour.ask(HOST, 8080) == "nothing"
    world.neighbour.sh(
        "sysctl -qw net.ipv4.conf.eth0.route_localnet=1; ip link set lo down; ip addr flush dev lo;"
        f"ip route add 127.0.0.1 via {HOST} src {NEIGHBOUR}"
    )
    with world.without("guard"):
        assert world.neighbour.ask("127.0.0.1", 8080) == f"web {NEIGHBOUR}"
    assert world.neighbour.ask("127.0.0.1", 8080) == "nothing"


def test_loopback_of_the_host_from_an_instance(world: World) -> None:
    """A service on the host's loopback is out of an instance's reach, though the bridge routes loopback addresses."""
    web = world.instance("web")
    world.host.serve(9999, at="127.0.0.1")
    gateway = world.networks.find("bridge").gateway
    web.sh(
        "sysctl -qw net.ipv4.conf.eth0.route_localnet=1; ip link set lo down; ip addr flush dev lo;"
        f"ip route add 127.0.0.1 via {gateway} src {web.address}"
    )
    with world.without("guard"):
        assert web.ask("127.0.0.1", 9999) == f"host {web.address}"
    assert web.ask("127.0.0.1", 9999) == "nothing"


def test_the_host_becomes_no_router(world: World) -> None:
    """Forwarding for instances doesn't open a way between the networks the host had before."""
    third = world.outsider("third", "lan2", "203.0.113.1", "203.0.113.2")
    third.serve(80)
    assert world.neighbour.ask(third.address, 80) == f"third {NEIGHBOUR}"  # came later: not ours to close
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    assert world.neighbour.ask(third.address, 80) == "nothing"
    world.networks.restore()
    assert world.neighbour.ask(third.address, 80) == "nothing"
    world.neighbour.serve(80)
    assert world.instance("web").ask(NEIGHBOUR, 80).startswith("neighbour ")


def test_a_firewall_of_the_host_holds(world: World) -> None:
    """A host that drops what it forwards is not overruled by a published port; `check` says so and what would help."""
    world.instance("web")
    world.publish("web", 8080)
    script = "add table inet wall; add chain inet wall f { type filter hook forward priority 10; policy drop; }"
    subprocess.run(["nft", script], check=True)
    assert world.neighbour.ask(HOST, 8080) == "nothing"
    (finding,) = world.networks.check(repaired=True)
    assert finding.object == "host firewall, chain f of table inet wall"
    assert not finding.repaired
    for word in ("iifname", "oifname"):
        rule = f"insert rule inet wall f {word} {world.networks.find('bridge').interface} accept"
        assert word == "oifname" or rule in finding.repair
        subprocess.run(["nft", rule], check=True)
    assert world.neighbour.ask(HOST, 8080) == f"web {NEIGHBOUR}"
    assert world.networks.check() == []


@pytest.mark.parametrize("program", ["iptables-legacy", "iptables-nft"])
@pytest.mark.parametrize("rule", ["-P FORWARD DROP", "-A FORWARD -j REJECT"])
def test_an_older_firewall_holds(world: World, program: str, rule: str) -> None:
    """A firewall of iptables, in nftables or beside it, is told of by `check` and `why`, until it knows the bridge."""
    if not shutil.which(program) or subprocess.run([program, "-S"], capture_output=True, check=False).returncode:
        pytest.skip(f"no {program}")
    world.instance("web")
    world.publish("web", 8080)
    world.networks.create(NetworkRequest(name="other"))
    subprocess.run([program, *rule.split()], check=True)
    assert world.neighbour.ask(HOST, 8080) == "nothing"
    found = world.networks.check()
    assert [finding.object.startswith("host firewall, chain FORWARD of ") for finding in found] == [True]
    way = why(world.networks, "world", HOST, 8080, "tcp")
    assert way.passes
    assert [word for word in way.warnings if "chain FORWARD" in word] == way.warnings != []
    bridge = world.networks.find("bridge").interface
    for words in (("-i", bridge), ("-o", bridge)):
        subprocess.run([program, "-I", "FORWARD", *words, "-j", "ACCEPT"], check=True)
    assert world.neighbour.ask(HOST, 8080) == f"web {NEIGHBOUR}"
    assert why(world.networks, "world", HOST, 8080, "tcp").warnings == []
    (finding,) = world.networks.check()  # the other network's bridge is not known yet
    assert f" {world.networks.find('other').interface} " in finding.repair
    prefix = bridge[:3] + "+"
    for words in (("-i", prefix), ("-o", prefix)):
        subprocess.run([program, "-I", "FORWARD", *words, "-j", "ACCEPT"], check=True)
    assert world.networks.check() == []
