"""Networks between real namespaces.

                    ┌──────────── host (a namespace of the test's own) ─────────────┐
     neighbour ─────┤ 198.51.100.1   bridge a ── instances   bridge b ── instances  │
    198.51.100.2    └───────────────────────────────────────────────────────────────┘

Every attack is first shown to work with the rule that stops it taken out.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from trivet.base.error import AlreadyExists, Conflict, InvalidArgument, TrivetError, Unsupported
from trivet.client.schema_network import EndpointRequest, NetworkRequest, PortRequest
from trivet.engine.network import names, namespace
from trivet.engine.network.model import Form, NetworkInUse, NoSuchNetwork, PortTaken
from trivet.engine.network.network import Networks
from trivet.isolation import specification
from trivet.isolation.plan import Attachment
from trivet.kernel import nftables, rtnetlink
from trivet.launch.operation import AddAddress, AddRoute, JoinPath, LinkUp
from trivet.launch.spawn import run
from trivet.store.record import Records

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]

HOST, NEIGHBOUR = "198.51.100.1", "198.51.100.2"
SERVER = """
import socket, sys
name, kind, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in sys.argv[4] else socket.AF_INET
server = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((sys.argv[4], port))
if kind == "tcp":
    server.listen()
print("ready", flush=True)
while True:
    if kind == "tcp":
        connection, peer = server.accept()
        connection.sendall(f"{name} {peer[0]}".encode())
        connection.close()
    else:
        data, peer = server.recvfrom(100)
        server.sendto(f"{name} {peer[0]}".encode(), peer)
"""
CLIENT = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
client = socket.socket(family, socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM)
client.settimeout(0.5)
try:
    client.connect((sys.argv[2], int(sys.argv[3])))
    client.send(b"hello")
    print(client.recv(100).decode(), end="")
except OSError as error:
    print("nothing", end="")
"""


class Place:
    """Somewhere programs can be: the host, the neighbour, an instance. `path` is its network namespace."""

    def __init__(self, stack: contextlib.ExitStack, name: str, path: str = "", address: str = "") -> None:
        self._stack = stack
        self.name = name
        self.address = address
        self._enter = ["nsenter", f"--net={path}"] if path else []

    def serve(self, port: int, protocol: str = "tcp", at: str = "0.0.0.0") -> None:
        """Answer on a port with this place's name and the address of who asked."""
        words = [*self._enter, sys.executable, "-c", SERVER, self.name, protocol, str(port), at]
        process = self._stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE))
        self._stack.callback(process.kill)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"

    def ask(self, address: str, port: int, protocol: str = "tcp") -> str:
        """What the other side answered, or "nothing"."""
        words = [*self._enter, sys.executable, "-c", CLIENT, protocol, address, str(port)]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout

    def sh(self, script: str) -> None:
        """Change something there."""
        subprocess.run([*self._enter, "sh", "-ec", script], check=True, timeout=20)


def join(networks: Networks, network: str, name: str, form: Form, **wish: str) -> Attachment:
    """Attach an instance to one network."""
    wishes = [msgspec.convert({"network": network or "bridge", **wish}, EndpointRequest)]
    return networks.attach(name, name, form, wishes)[0]


class World:
    """A host with an engine's networks, and a neighbour on its LAN."""

    def __init__(self, stack: contextlib.ExitStack, base: Path) -> None:
        self._stack = stack
        self.base = base
        self.records = Records(base / "record.db")
        stack.callback(self.records.close)
        self.networks = Networks(self.records, "test", base)
        self.host = Place(stack, "host")
        self.neighbour = self.outsider("neighbour", "lan", HOST, NEIGHBOUR)
        self.networks.ensure_default()
        stack.callback(self.networks.remove_all)

    def outsider(self, name: str, interface: str, host: str, address: str) -> Place:
        """A machine on a wire of its own to the host, which it uses as its router."""
        path = self.base / name
        namespace.create(path)
        self._stack.callback(namespace.remove, path)
        rtnetlink.create_bridge(interface)
        rtnetlink.add_address(interface, ipaddress.IPv4Interface(f"{host}/24"))
        descriptor = os.open(path, os.O_RDONLY)
        rtnetlink.create_veth(f"{interface}p", interface, "eth0", descriptor, mac="02:00:00:00:00:02")
        os.close(descriptor)
        self._configure(str(path), f"{address}/24", host)
        return Place(self._stack, name, str(path), address)

    def instance(self, name: str, network: str = "bridge", *, ip: str = "", port: int = 80) -> Place:
        """An attached instance that serves a port."""
        place = self.quiet(name, EndpointRequest(network=network, ip=ip))
        place.serve(port)
        return place

    def quiet(self, name: str, *wishes: EndpointRequest) -> Place:
        """An attached instance that serves nothing."""
        uses = self.networks.attach(name, name, "netns", wishes)
        run([JoinPath(uses[0].path, namespace.CLONE_NEWNET), *specification.network(uses)])
        return Place(self._stack, name, uses[0].path, uses[0].addresses[0].address.partition("/")[0])

    def publish(self, instance: str, host_port: int, port: int = 80, address: str = "", protocol: str = "tcp") -> int:
        """Publish one port; the host's port."""
        request = PortRequest(
            container_port=port,
            host_port=host_port,
            host_address=address,
            protocol="udp" if protocol == "udp" else "tcp",
        )
        return self.networks.publish(instance, [request])[0].host_port

    def without(self, chain: str) -> contextlib.AbstractContextManager[None]:
        """The host with one chain of our table taken out."""
        return _without(self.networks, chain)

    def _configure(self, path: str, address: str, gateway: str) -> None:
        route = [AddRoute("eth0", "", gateway)] if gateway else []
        run([JoinPath(path, namespace.CLONE_NEWNET), LinkUp("lo"), LinkUp("eth0"), AddAddress("eth0", address), *route])


@contextlib.contextmanager
def _without(networks: Networks, chain: str) -> Iterator[None]:
    subprocess.run(["nft", "flush", "chain", "inet", networks.table, chain], check=True)
    try:
        yield
    finally:
        networks.load()


@pytest.fixture
def world(short_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(stack, short_path)


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
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(str(world.base / "relay.sock"))
        os.kill(struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0], signal.SIGKILL)
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


def test_publishing_mends_a_flushed_table(world: World) -> None:
    """A port published after a flush works, and so do those before it."""
    world.instance("web")
    world.publish("web", 8080)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    world.publish("web", 8081)
    assert world.neighbour.ask(HOST, 8080) == world.neighbour.ask(HOST, 8081) == f"web {NEIGHBOUR}"


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


def test_static_address(world: World) -> None:
    """An address can be chosen; a taken one is refused with its holder; a released one is free again."""
    subnet = ipaddress.ip_network(world.networks.find("bridge").subnet)
    wanted = str(subnet[99])
    assert world.instance("web", ip=wanted).address == wanted
    with pytest.raises(AlreadyExists, match=f"{wanted} is already in use by instance web"):
        join(world.networks, "", "late", "netns", ip=wanted)
    world.networks.detach("web")
    world.networks.detach("web")
    with pytest.raises(AlreadyExists, match="instance web"):
        join(world.networks, "", "late", "netns", ip=wanted)
    world.networks.release("web")
    world.networks.release("web")
    assert join(world.networks, "", "late", "netns", ip=wanted).addresses[0].address.startswith(wanted)


def test_tap(world: World) -> None:
    """A machine gets a tap on the bridge, gone when it is detached."""
    use = join(world.networks, "", "machine", "tap", mac="02:00:00:00:00:99")
    link = rtnetlink.link(use.device)
    bridge = rtnetlink.link(world.networks.find("bridge").interface)
    assert link
    assert bridge
    assert (use.kind, link.master, use.mac, link.up) == ("tap", bridge.index, "02:00:00:00:00:99", True)
    world.networks.detach("machine")
    assert rtnetlink.link(use.device) is None


def test_failed_attachment_leaves_nothing(world: World) -> None:
    """When the pair can't be made, the namespace goes too."""
    rtnetlink.delete_link(world.networks.find("bridge").interface)
    with pytest.raises(OSError, match="No such device"):
        join(world.networks, "", "web", "netns")
    assert not list((world.base / "netns").iterdir())


def test_remove_and_prune(world: World) -> None:
    """A network goes when nobody is on it; predefined ones stay."""
    world.networks.create(NetworkRequest(name="app"))
    join(world.networks, "app", "web", "netns")
    with pytest.raises(NetworkInUse, match="instance web"):
        world.networks.remove("app")
    assert world.networks.prune() == []
    interface = world.networks.find("app").interface
    world.networks.release("web")
    assert world.networks.prune(dry_run=True) == ["app"]
    assert world.networks.prune() == ["app"]
    assert rtnetlink.link(interface) is None
    with pytest.raises(NoSuchNetwork):
        world.networks.find("app")
    with pytest.raises(Conflict, match="predefined"):
        world.networks.remove("bridge")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (NetworkRequest(name="bridge"), "already exists"),
        (NetworkRequest(name="../x"), "invalid"),
        (NetworkRequest(name="x", driver="overlay"), "driver overlay"),
        (NetworkRequest(name="x", subnet="198.51.100.0/25"), "overlaps 198.51.100.0/24"),
        (NetworkRequest(name="x", subnet="10.0.0.1/24"), "host bits set"),
        (NetworkRequest(name="x", subnet="10.0.0.0/30"), "smallest"),
        (NetworkRequest(name="x", subnet="10.0.0.0/24", gateway="10.0.1.1"), "gateway 10.0.1.1"),
        (NetworkRequest(name="x", mtu=10), "MTU 10"),
    ],
)
def test_bad_requests(world: World, request_: NetworkRequest, words: str) -> None:
    """A network that can't be is refused with the reason, and leaves no record and no interface."""
    before = {link.name for link in rtnetlink.links()}
    with pytest.raises(TrivetError, match=words):
        world.networks.create(request_)
    assert len(world.networks.list()) == 3
    assert {link.name for link in rtnetlink.links()} == before


def test_levels_and_networks(world: World) -> None:
    """Levels that can't be on a network are told so; the others get what fits."""
    assert join(world.networks, "none", "a", "netns").kind == "none"
    assert join(world.networks, "host", "b", "netns").kind == "host"
    for network, form in (("host", "tap"), ("none", "host")):
        with pytest.raises(Unsupported, match=network):
            join(world.networks, network, "c", "tap" if form == "tap" else "host")
    with pytest.raises(Conflict, match="network none"):
        world.publish("a", 8080)


def test_files(world: World) -> None:
    """An instance knows itself and what it was told; its networks' DNS server is its resolver, if they have one."""
    world.networks.create(NetworkRequest(name="app"))
    own = join(world.networks, "app", "db", "netns").addresses[0].address.partition("/")[0]
    join(world.networks, "", "lone", "netns")
    gateway = world.networks.find("app").gateway
    files = world.networks.files("db", "db1", world.base, dns=["192.0.2.53"], extra_hosts=["up:host-gateway", "x:::1"])
    names.write(files)
    text = {file.target: Path(file.source).read_text() for file in files}
    rows = [line.split("\t") for line in text["/etc/hosts"].splitlines()]
    assert rows[2:] == [[own, "db1"], [gateway, "up"], ["::1", "x"]]
    assert text["/etc/resolv.conf"].startswith("nameserver 127.0.0.11\n")
    assert text["/etc/hostname"] == "db1\n"
    lone = {file.target: file.content for file in world.networks.files("lone", "lone", world.base)}
    assert b"127.0.0.11" not in lone["/etc/resolv.conf"]
    with pytest.raises(InvalidArgument, match="nonsense"):
        world.networks.files("db", "db", world.base, extra_hosts=["nonsense"])
