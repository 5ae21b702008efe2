"""Published ports between real namespaces: who reaches them, who has them, and how they change hands."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time

import pytest
from tests.kernel.world import HOST, NEIGHBOUR, Place, World, join

from trivet.base.error import InvalidArgument
from trivet.client.schema_network import EndpointRequest, NetworkRequest, PortRequest
from trivet.engine.network.model import PortTaken
from trivet.engine.network.network import Networks
from trivet.kernel import nftables
from trivet.store.record import Records

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]


def _relay(world: World) -> int:
    """Tell which process the relay is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(str(world.base / "relay.sock"))
        pid: int = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_published_port(world: World, protocol: str) -> None:
    """A published port answers from outside, from localhost, from the host's address and from instances."""
    web, other = world.instance("web"), world.instance("other")
    if protocol == "udp":
        web.serve(80, "udp")
    world.publish("web", 8080, protocol=protocol)
    assert world.neighbour.ask(HOST, 8080, protocol) == f"web {NEIGHBOUR}"  # the client's address is preserved
    for asking, address in ((world.host, "127.0.0.1"), (world.host, HOST), (other, HOST), (web, HOST)):
        assert asking.ask(address, 8080, protocol).startswith("web "), (asking.name, address)
    world.networks.unpublish("web")
    for asking, address in ((world.neighbour, HOST), (world.host, "127.0.0.1"), (other, HOST)):
        assert asking.ask(address, 8080, protocol) == "nothing", (asking.name, address)


def test_a_datagram_port_moves(world: World) -> None:
    """A client that goes on sending reaches the instance that has the port now, not the one that had it."""
    for name in ("web", "next"):
        world.instance(name).serve(80, "udp")
    world.publish("web", 8080, protocol="udp")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect((HOST, 8080))
        client.send(b"1")
        assert client.recv(100).startswith(b"web ")
        world.networks.unpublish("web")
        world.publish("next", 8080, protocol="udp")
        client.send(b"2")
        assert client.recv(100).startswith(b"next ")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_relay_carries_what_no_rule_can(world: World, protocol: str) -> None:
    """[::1] answers, and a port published on IPv6 by an instance without; after a kill too."""
    world.networks.create(NetworkRequest(name="six", ipv6=True))
    for name, network in (("four", "bridge"), ("both", "six")):
        world.quiet(name, EndpointRequest(network=network)).serve(
            80, protocol, at="::" if name == "both" else "0.0.0.0"
        )
    world.publish("four", 8080, protocol=protocol)
    world.publish("both", 8081, protocol=protocol)
    world.publish("four", 8082, address="::", protocol=protocol)
    assert world.host.ask("::1", 8080, protocol).startswith("four ")
    assert world.host.ask("::1", 8082, protocol).startswith("four ")
    world.host.sh("ip addr add 2001:db8:1::1/64 dev lan nodad")
    world.neighbour.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip addr add 2001:db8:1::2/64 dev eth0 nodad")
    assert world.neighbour.ask("2001:db8:1::1", 8082, protocol).startswith("four ")
    assert world.neighbour.ask("2001:db8:1::1", 8080, protocol) == "nothing"
    os.kill(_relay(world), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not world.host.ask("::1", 8082, protocol).startswith("four "):
        assert time.monotonic() < deadline
    assert world.networks.check() == []
    again = Networks(world.records, "test", world.base)
    again.restore(["four", "both"])
    assert world.host.ask("::1", 8080, protocol).startswith("four ")
    again.unpublish("four")
    assert world.host.ask("::1", 8080, protocol) == world.host.ask("::1", 8082, protocol) == "nothing"
    again.remove_all()


def test_what_is_published_on_the_loopback_of_ipv6(world: World) -> None:
    """A port that was published on [::1] is there when it is said to be, and at no other address."""
    world.instance("web")
    world.publish("web", 8080, address="::1")
    assert world.host.ask("::1", 8080).startswith("web ")
    assert world.host.ask("127.0.0.1", 8080) == world.neighbour.ask(HOST, 8080) == "nothing"


def test_the_relay_survives_resets(world: World) -> None:
    """Who resets a connection on its way takes nothing from those that come next, nor from the engine's own words."""
    place = world.quiet("web")
    place.hold(80)
    world.publish("web", 8080)
    world.publish("web", 8081, 81, address="::")
    place.serve(81, at="0.0.0.0")
    for _ in range(5):
        rude = socket.create_connection(("::1", 8080), 10)
        assert rude.recv(100) == b"held"
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        rude.close()
    for _ in range(5):
        assert world.host.ask("::1", 8081).startswith("web ")
    again = Networks(world.records, "test", world.base)
    again.restore(["web"])
    assert again.check() == []
    again.carrier.leave()


def test_ports_change_hands(world: World) -> None:
    """Ports are taken back and published in one step, of one instance or from one to another; all or nothing."""
    for name in ("web", "next"):
        world.instance(name)
    world.publish("web", 8080)
    (old,) = world.networks.ports("web")
    taken = PortRequest(container_port=80, host_port=8080)
    with pytest.raises(PortTaken, match="instance web"):
        world.networks.change_ports("next", (), [taken])
    other = PortRequest(container_port=80, host_port=8081)
    with pytest.raises(PortTaken, match="the same instance"):
        world.networks.change_ports("next", [old], [taken, taken], "web")
    assert world.neighbour.ask(HOST, 8080) == f"web {NEIGHBOUR}"
    world.networks.change_ports("web", [old], [other])
    assert (world.neighbour.ask(HOST, 8080), world.neighbour.ask(HOST, 8081)) == ("nothing", f"web {NEIGHBOUR}")
    world.networks.change_ports("next", world.networks.ports("web"), [other, taken], "web")
    assert world.networks.ports("web") == []
    assert world.neighbour.ask(HOST, 8080) == world.neighbour.ask(HOST, 8081) == f"next {NEIGHBOUR}"
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    world.networks.change_ports("web", world.networks.ports("next"), [other], "next")
    assert (world.neighbour.ask(HOST, 8080), world.neighbour.ask(HOST, 8081)) == ("nothing", f"web {NEIGHBOUR}")
    assert world.networks.check() == []


def test_redirect_to_the_host_network(world: World) -> None:
    """A port published by an instance that uses the host's network leads to the host's other port."""
    join(world.networks, "host", "web", "host")
    Place(world._stack, "web").serve(80)
    world.publish("web", 8081)
    assert world.host.ask("127.0.0.1", 8081) == "web 127.0.0.1"
    assert world.neighbour.ask(HOST, 8081) == f"web {NEIGHBOUR}"
    assert world.publish("web", 8082, 8082) == 8082
    assert not nftables.has_element(world.networks.table, "on_tcp_here", nftables.join(8082))


def test_taken_ports(world: World) -> None:
    """A port that an instance, a program or another engine has is refused with its owner's name; nothing is kept."""
    for name in ("web", "late"):
        join(world.networks, "", name, "netns")
    world.publish("web", 8080)
    world.host.serve(9090)
    other = Networks(Records(world.base / "other.db"), "other", world.base / "o")
    (world.base / "o").mkdir()
    other.ensure_default()
    join(other, "", "theirs", "netns")
    other.publish("theirs", [PortRequest(container_port=80, host_port=7070)])
    for port, owner in (
        (8080, "instance web"),
        (9090, r"\S+ \(pid \d+\)"),
        (7070, "another trivet engine"),
    ):
        wanted = [PortRequest(container_port=1, host_port=6060), PortRequest(container_port=80, host_port=port)]
        with pytest.raises(PortTaken, match=f"^port {port}/tcp on 0.0.0.0 is already used by {owner}"):
            world.networks.publish("late", wanted)
        assert world.publish("late", 6060) == 6060  # was not kept
        world.networks.unpublish("late")
    with pytest.raises(PortTaken, match=r"on 127\.0\.0\.1"):
        world.publish("late", 8080, address="127.0.0.1")
    world.publish("late", 8080, protocol="udp")
    with pytest.raises(InvalidArgument, match="not an address of this host"):
        world.publish("late", 5050, address="192.0.2.77")
    other.remove_all()


def test_free_ports(world: World) -> None:
    """Host port 0 gives a free port, each time another."""
    world.instance("web")
    wanted = [PortRequest(container_port=80)] * 20
    ports = [port.host_port for port in world.networks.publish("web", wanted)]
    assert len(set(ports)) == 20
    assert world.neighbour.ask(HOST, ports[-1]) == f"web {NEIGHBOUR}"


def test_publishing_mends_a_flushed_table(world: World) -> None:
    """A port published after a flush works, and so do those before it."""
    world.instance("web")
    world.publish("web", 8080)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    world.publish("web", 8081)
    assert world.neighbour.ask(HOST, 8080) == world.neighbour.ask(HOST, 8081) == f"web {NEIGHBOUR}"
