"""Every packet, asked and sent: what `path.trace` says of it is what happens to it.

    a (IPv4 and IPv6): a1 a2 ab m1 (a machine)    b: b1 ab m2    c (internal): c1 c2    d (kept apart): d1 d2
    e (IPv6 alone): e1 e2 m3    f (IPv6 alone, internal): f1
    the host    neighbour and third, each on a wire of its own to the host

Everybody answers on the same ports, so a packet that gets through is answered, by somebody who says who it is.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.world import HOST, NEIGHBOUR, Place, World

from trivet.client.schema_network import EndpointRequest, NetworkRequest
from trivet.client.schema_path import Way
from trivet.client.schema_policy import Allowance, Peer, PolicyPort, PolicyRequest
from trivet.engine.network import path

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]

HOST6, NEIGHBOUR6 = "2001:db8:1::1", "2001:db8:1::2"
THIRD = "203.0.113.2"
SERVER = """
import selectors, socket, sys
name, chosen = sys.argv[1], selectors.DefaultSelector()
for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    more = (8080, 8081, 8083, 8084, 8087) if family == socket.AF_INET else ()
    for kind, ports in ((socket.SOCK_STREAM, (80, 81, *more)), (socket.SOCK_DGRAM, (80,))):
        for port in ports:
            server = socket.socket(family, kind)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((everywhere, port))
            if kind == socket.SOCK_STREAM:
                server.listen(100)
            chosen.register(server, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        server = key.fileobj
        if server.type == socket.SOCK_STREAM:
            connection, _ = server.accept()
            connection.sendall(name.encode())
            connection.close()
        else:
            _, peer = server.recvfrom(100)
            server.sendto(name.encode(), peer)
"""
CLIENT = """
import json, selectors, socket, sys, time
chosen, answers = selectors.DefaultSelector(), {}
for number, (protocol, address, port) in enumerate(json.load(sys.stdin)):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    client.setblocking(False)
    try:
        client.connect((address, port))
    except BlockingIOError:
        pass
    except OSError:
        continue
    if protocol == "udp":
        try:
            client.send(b"?")
        except OSError:
            continue
    chosen.register(client, selectors.EVENT_READ, number)
end = time.monotonic() + WAIT
while chosen.get_map() and time.monotonic() < end:
    for key, _ in chosen.select(0.1):
        try:
            answers[key.data] = key.fileobj.recv(100).decode()
        except OSError:
            pass
        chosen.unregister(key.fileobj)
json.dump(answers, sys.stdout)
"""
PORTS = (("tcp", 80), ("tcp", 81), ("udp", 80))
Question = tuple[str, str, int]


class Matrix(World):
    """A world in which everybody answers."""

    def __init__(self, stack: contextlib.ExitStack, base: Path) -> None:
        super().__init__(stack, base)
        self.places: dict[str, Place] = {"": self.host, "lan": self.neighbour}
        self.places["lan2"] = self.outsider("third", "lan2", "203.0.113.1", THIRD)
        self.places["lan2"].sh(  # sends what is for 127.0.0.1 over the wire
            "sysctl -qw net.ipv4.conf.eth0.route_localnet=1; ip link set lo down; ip addr flush dev lo;"
            f"ip route add 127.0.0.1 via 203.0.113.1 src {THIRD}"
        )
        self._six()
        shapes: dict[str, dict[str, Any]] = {
            "a": {"ipv6": True},
            "b": {},
            "c": {"internal": True},
            "d": {"options": {"com.docker.network.bridge.enable_icc": "false"}},
            "e": {"ipv4": False, "ipv6": True},
            "f": {"ipv4": False, "ipv6": True, "internal": True},
        }
        for name, shape in shapes.items():
            self.networks.create(NetworkRequest(name=name, **shape))
        for name in ("a1", "a2", "b1", "c1", "c2", "d1", "d2", "e1", "e2", "f1"):
            self.places[name] = self.quiet(name, EndpointRequest(network=name[0]))
        for name, network in (("m1", "a"), ("m2", "b"), ("m3", "e")):
            self.places[name] = self.machine(name, EndpointRequest(network=network))
        for name in ("c1", "c2"):
            self.places[name].sh(f"ip route add default via {self.networks.find('c').gateway}")
        self.places["ab"] = self.quiet("ab", EndpointRequest(network="a"), EndpointRequest(network="b"))
        self.publish("a1", 8080)
        self.publish("a2", 8082, protocol="udp")
        self.publish("b1", 8081, address="127.0.0.1")
        self.publish("d1", 8083, 81)
        self.publish("ab", 8084, address=HOST)
        self.publish("e1", 8085)
        self.publish("m1", 8086)
        self.publish("m2", 8087, address=HOST)
        for place in self.places.values():  # the host's own only now: a port that it has can't be published
            self._serve(place)

    def _six(self) -> None:
        self.host.sh(f"ip addr add {HOST6}/64 dev lan nodad")
        self.neighbour.sh(
            f"sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip addr add {NEIGHBOUR6}/64 dev eth0 nodad;"
            f"ip route add default via {HOST6}"
        )

    def _serve(self, place: Place) -> None:
        command = [*place._enter, sys.executable, "-c", SERVER, place.name]
        process = self._stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
        self._stack.callback(process.kill)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"

    def questions(self, source: str) -> list[Question]:
        """Everything that is worth asking of a place."""
        addresses = [HOST, THIRD, NEIGHBOUR]
        endpoints = self.networks.ledger.endpoints()
        addresses += [text for each in endpoints for text in (each.address, each.address6) if text]
        asked = [(protocol, address, port) for address in addresses for protocol, port in PORTS if address != HOST]
        local = [HOST, *(self.networks.find(name).gateway for name in ("a", "c"))]
        local += ["127.0.0.1"] if source in ("", "lan2", "b1") else []
        published = (8080, 8081, 8083, 8084, *((8085, 8086) if source != "b1" else ()), 8087)
        asked += [("tcp", address, port) for address in local for port in (80, *published)]
        asked += [("udp", address, 8082) for address in local if address != "127.0.0.1"]
        asked += [("tcp", HOST6, port) for port in (80, 8080, 8085, 8086)] + [("udp", HOST6, 8082)]
        if source == "":
            asked += [("tcp", "::1", port) for port in (80, 8080, 8083, 8085, 8086)] + [("udp", "::1", 8082)]
        own = self.places[source].address
        return [each for each in asked if each[1] != own and not (source == "lan2" and ":" in each[1])]

    def ask(self, asked: dict[str, list[Question]]) -> dict[str, list[str]]:
        """Let every place ask its questions, all at once; who answered each, "" is nobody."""
        script = CLIENT.replace("WAIT", "2")
        asking = {
            source: subprocess.Popen(
                [*self.places[source]._enter, sys.executable, "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for source in asked
        }
        for source, process in asking.items():
            assert process.stdin
            process.stdin.write(json.dumps(asked[source]))
            process.stdin.close()
            process.stdin = None
        found = {source: json.loads(process.communicate(timeout=60)[0]) for source, process in asking.items()}
        return {
            source: [found[source].get(str(number), "") for number in range(len(asked[source]))] for source in asked
        }

    def told(self, source: str, question: Question) -> Way:
        """What is said about a packet."""
        protocol, address, port = question
        packet = path.Packet(
            source=source,
            address=ipaddress.ip_address(address),
            port=port,
            protocol=protocol,
            outside=source.startswith("lan"),
            origin=self._origin(source, address) if source.startswith("lan") else None,
        )
        return path.trace(self.networks.map(), packet)

    def _origin(self, source: str, address: str) -> path.Address:
        text = THIRD if source == "lan2" else NEIGHBOUR6 if ":" in address else NEIGHBOUR
        return ipaddress.ip_address(text)


@pytest.fixture
def matrix(short_path: Path) -> Iterator[Matrix]:
    with contextlib.ExitStack() as stack:
        made = Matrix(stack, short_path)
        deadline = time.monotonic() + 15
        while not made.networks.carrier.told:  # the relay of [::1] comes a moment later
            assert time.monotonic() < deadline, "there is no relay"
            time.sleep(0.05)
        yield made


def differences(matrix: Matrix, *sources: str, wall: bool = False) -> list[str]:
    """Where what is said and what happens are two things; with a `wall` nothing is forwarded."""
    found, outside = [], {"neighbour", "third"}
    asked = {source: matrix.questions(source) for source in sources or matrix.places}
    answered = matrix.ask(asked)
    for source in asked:
        place = matrix.places[source]
        for question, answer in zip(asked[source], answered[source], strict=True):
            told = matrix.told(source, question)
            expected = "" if wall and told.forwarded else told.reaches
            if (expected, question[2]) == ("host", 8085):  # the relay had the port when the host began to serve
                expected = ""
            if ("outside" if answer in outside else answer) != expected:
                found.append(f"{place.name} → {question}: {answer or 'nothing'}, said was {told}")
    return found


def test_what_is_said_is_what_happens(matrix: Matrix) -> None:
    """For every source and destination the answer comes from whom `trace` names, and each rule it names is loaded."""
    assert "\n".join(differences(matrix)) == ""
    text = matrix.networks.tables()[0].render()
    for source in matrix.places:
        for question in matrix.questions(source):
            for step in matrix.told(source, question).steps:
                _, _, rest = text.partition(f"\tchain {step.chain} {{\n")
                assert f"\t\t{step.rule}\n" in rest.partition("\t}\n")[0], step


def test_the_wall_of_the_host_stands(matrix: Matrix) -> None:
    """A host whose own chains drop what is forwarded forwards nothing, published or not; the rest is as before."""
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if switch.exists():  # frames between two ports of a bridge are then asked about too
        assert switch.read_text() == "1\n"
    script = "add table inet wall; add chain inet wall f { type filter hook forward priority -10; policy drop; }"
    subprocess.run(["nft", script], check=True)
    assert "\n".join(differences(matrix, wall=True)) == ""


POLICIES = (
    PolicyRequest(
        name="front",
        labels={"net": "a", "number": "1"},
        ingress=[
            Allowance(peers=[Peer(labels={"number": "2"})], ports=[PolicyPort(first=80, last=80)]),
            Allowance(peers=[Peer(cidr="198.51.100.0/24", excluding=["198.51.100.128/25"])]),
        ],
    ),
    PolicyRequest(name="silent", labels={"net": "b"}, egress=[]),
    PolicyRequest(
        name="inner",
        labels={"net": "c"},
        ingress=[Allowance(ports=[PolicyPort(first=80, last=80, protocol="udp"), PolicyPort(first=81, last=90)])],
        log=True,
    ),
    PolicyRequest(name="both", labels={"net": "a", "number": "2"}, ingress=[Allowance(peers=[Peer(labels={})])]),
    PolicyRequest(
        name="six",
        labels={"net": "a", "number": "2"},
        egress=[Allowance(peers=[Peer(cidr="fd00::/8"), Peer(cidr="203.0.113.0/24")])],
    ),
    PolicyRequest(
        name="alone",
        labels={"net": "e", "number": "1"},
        ingress=[Allowance(peers=[Peer(labels={"net": "m"})], ports=[PolicyPort(first=80, last=80)])],
    ),
    PolicyRequest(
        name="machine",
        labels={"net": "m", "number": "1"},
        ingress=[Allowance(peers=[Peer(labels={"net": "a"})], ports=[PolicyPort(first=81, last=81)])],
        egress=[Allowance(peers=[Peer(labels={"net": "a", "number": "2"})])],
    ),
)


def test_policies_are_kept(matrix: Matrix) -> None:
    """With policies in force, what is said is what happens, too, within a bridge as between networks and outside."""
    matrix.networks.labels = lambda key: {"net": key[0], "number": key[1:]} if key[1:].isdigit() else {}
    for policy in POLICIES:
        changes = matrix.networks.policies.apply(policy, dry_run=True).changes
        assert matrix.networks.policies.apply(policy).changes == changes != []
        assert matrix.networks.policies.apply(policy).changes == []
    assert "\n".join(differences(matrix)) == ""
    text = matrix.networks.tables()[0].render()
    steps = [
        step
        for source in matrix.places
        for each in matrix.questions(source)
        for step in matrix.told(source, each).steps
    ]
    assert {"policy_in", "policy_out"} <= {step.chain for step in steps}
    for step in steps:
        _, _, rest = text.partition(f"\tchain {step.chain} {{\n")
        assert f"\t\t{step.rule}\n" in rest.partition("\t}\n")[0], step
    for policy in POLICIES:
        matrix.networks.policies.remove(policy.name)
    assert "\n".join(differences(matrix, "a2")) == ""
    assert all("listens there too" in finding.problem for finding in matrix.networks.check())
