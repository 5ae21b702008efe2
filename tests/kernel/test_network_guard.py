"""What an instance may say it is: frames made by hand in one namespace, looked for in another.

Every frame is first shown to arrive with the rule that stops it taken out.
"""

from __future__ import annotations

import contextlib
import ipaddress
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.world import Place, World

from trivet.client.schema_network import EndpointRequest, NetworkRequest
from trivet.kernel import nftables

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]

LISTENER = """
import socket, sys
server = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
server.bind(("eth0", 0))
print("ready", flush=True)
while True:
    frame = server.recv(2000)
    if b"MARK" in frame:
        print(frame[frame.index(b"MARK"):].split(b".")[0].decode(), flush=True)
"""
SENDER = """
import socket, sys
client = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
client.bind(("eth0", 0))
for frame in sys.argv[1:]:
    client.send(bytes.fromhex(frame))
"""
OTHER_MAC = "02:74:00:00:00:77"
FILLING = b" " * 40
EVERYBODY = b"\xff" * 6


class Frames:
    """Frames from `sender` to `receiver`, each with a word in it that says what it is."""

    def __init__(self, world: World) -> None:
        world.networks.create(NetworkRequest(name="six", ipv6=True))
        self.network = world.networks.find("six")
        self.sender, self.receiver = (world.quiet(name, EndpointRequest(network="six")) for name in ("bad", "good"))
        (self.endpoint,) = world.networks.uses("bad")
        (self.victim,) = world.networks.uses("good")
        self.mac = self.endpoint.mac

    def all(self) -> dict[str, bytes]:
        """Every attack by name."""
        own, own6 = self.endpoint.address, self.endpoint.address6
        gateway, gateway6, victim6 = self.network.gateway, self.network.gateway6, self.victim.address6
        tagged = struct.pack(">HH", 0x8100, 5)
        return {
            "mac": self.ip(own, mac=OTHER_MAC),
            "address": self.ip(gateway),
            "nobody": self.ip("0.0.0.0"),
            "arp-reply": self.arp(gateway, self.mac, 2),
            "arp-request": self.arp(gateway, self.mac, 1),
            "arp-mac": self.arp(own, OTHER_MAC, 2),
            "tagged": self.frame(tagged + struct.pack(">H", 0x0800) + self.ip(gateway)[14:]),
            "protocol": self.frame(struct.pack(">H", 0x88CC) + b"lldp"),
            "bridge": self.frame(struct.pack(">H", 0x0026) + b"\x42\x42\x03", to=bytes.fromhex("0180c2000000")),
            "address6": self.ip6(gateway6, 17, b"\0\1\0\1\0\x08\0\0"),
            "advertisement": self.ip6(own6, 58, b"\x88\0\0\0\x60\0\0\0" + packed(victim6)),
            "claim": self.ip6("::", 58, b"\x87\0\0\0\0\0\0\0" + packed(victim6)),
            "router": self.ip6(own6, 58, b"\x86\0\0\0\x40\0\0\x1e" + bytes(8)),
            "redirect": self.ip6(own6, 58, b"\x89\0\0\0\0\0\0\0" + packed(victim6) + packed(gateway6)),
            "behind-options": self.ip6(own6, 60, b"\x3a\0\1\4\0\0\0\0" + b"\x88\0\0\0\x60\0\0\0" + packed(victim6)),
        }

    def good(self) -> dict[str, bytes]:
        """What an honest instance sends."""
        own, own6 = self.endpoint.address, self.endpoint.address6
        return {
            "own": self.ip(own),
            "own-arp": self.arp(own, self.mac, 2),
            "own-probe": self.arp("0.0.0.0", self.mac, 1),
            "own6": self.ip6(own6, 17, b"\0\1\0\1\0\x08\0\0"),
            "own-advertisement": self.ip6(own6, 58, b"\x88\0\0\0\x60\0\0\0" + packed(own6)),
            "own-claim": self.ip6("::", 58, b"\x87\0\0\0\0\0\0\0" + packed(own6)),
        }

    def frame(self, rest: bytes, mac: str = "", to: bytes = EVERYBODY) -> bytes:
        """A frame, beginning with its type."""
        return to + bytes.fromhex((mac or self.mac).replace(":", "")) + rest

    def ip(self, source: str, mac: str = "") -> bytes:
        """A datagram to everybody."""
        size = 20 + 8 + len(FILLING)
        head = struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0, 64, 17, 0) + packed(source) + b"\xff" * 4
        head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
        return self.frame(struct.pack(">H", 0x0800) + head + struct.pack(">HHHH", 1, 1, size - 20, 0) + FILLING, mac)

    def arp(self, address: str, mac: str, operation: int) -> bytes:
        """An ARP packet that says `address` is at `mac`."""
        sender = bytes.fromhex(mac.replace(":", "")) + packed(address)
        return self.frame(
            struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, operation) + sender + bytes(6) + packed(address)
        )

    def ip6(self, source: str, protocol: int, rest: bytes) -> bytes:
        """An IPv6 packet to all nodes, its checksum not computed: nobody on the way looks at it."""
        rest += FILLING
        head = struct.pack(">IHBB", 0x60000000, len(rest), protocol, 255) + packed(source) + packed("ff02::1")
        return self.frame(struct.pack(">H", 0x86DD) + head + rest, to=bytes.fromhex("333300000001"))

    def arrived(self, frames: dict[str, bytes]) -> set[str]:
        """Send frames; which of them came."""
        with heard(self.receiver) as words:
            marked = [marked_frame(name, frame) for name, frame in frames.items()]
            end = marked_frame("end", self.ip(self.endpoint.address))
            command = [*self.sender._enter, sys.executable, "-c", SENDER, *(frame.hex() for frame in (*marked, end))]
            subprocess.run(command, check=True, timeout=20)
            found = set[str]()
            for word in words:
                if word == "MARKend":
                    return found
                found.add(word.removeprefix("MARK"))
        raise AssertionError("the listener ended")


def marked_frame(name: str, frame: bytes) -> bytes:
    """Put a word at the end of a frame, over its filling, so that no length changes."""
    word = f"MARK{name}.".encode()
    return frame.removesuffix(FILLING) + word + FILLING[len(word) :]


@contextlib.contextmanager
def heard(place: Place) -> Iterator[Iterator[str]]:
    """Words in frames that come to a place."""
    command = [*place._enter, sys.executable, "-c", LISTENER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            yield (line.strip() for line in process.stdout)
        finally:
            process.kill()


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def checksum(head: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(head) // 2}H", head))
    return 0xFFFF - ((total & 0xFFFF) + (total >> 16)) % 0x10000


def test_nobody_is_somebody_else(world: World) -> None:
    """No frame with another's address, nor an answer for it, leaves an instance; without the rules all of them do."""
    frames = Frames(world)
    attacks = frames.all()
    subprocess.run(["nft", "flush", "chain", "bridge", world.networks.table, "sent"], check=True)
    assert frames.arrived(attacks) == set(attacks)
    world.networks.load()
    assert frames.arrived(attacks) == set()
    assert frames.arrived(frames.good()) == set(frames.good())


def test_neighbours_are_not_misled(world: World) -> None:
    """A victim goes on knowing its gateway while an instance says that it is the gateway itself."""
    frames = Frames(world)
    gateway, lie = frames.network.gateway, {"lie": frames.all()["arp-request"]}
    known = f"ip neigh replace {gateway} lladdr 02:00:00:00:00:09 dev eth0 nud stale"

    def believed() -> bool:
        frames.receiver.sh(known)
        frames.arrived(lie)
        command = [*frames.receiver._enter, "ip", "neigh", "show", gateway]
        return frames.mac in subprocess.run(command, capture_output=True, text=True, check=True).stdout

    subprocess.run(["nft", "flush", "chain", "bridge", world.networks.table, "sent"], check=True)
    assert believed()
    world.networks.load()
    assert not believed()


def test_sets_follow_the_instances(world: World) -> None:
    """Who comes is in the sets before its interface is; who goes is taken out, at the latest with the next load."""
    for number in range(20):
        world.networks.attach(f"i{number}", f"i{number}", "netns")
    assert len(nftables.keys(world.networks.table, "own_address", "bridge")) == 20
    for number in range(20):
        world.networks.detach(f"i{number}")
    assert len(nftables.keys(world.networks.table, "own_address", "bridge")) < 20
    world.networks.load()
    assert nftables.keys(world.networks.table, "own_address", "bridge") == []
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    world.instance("late")
    assert len(nftables.keys(world.networks.table, "guarded", "bridge")) == 1
    assert world.networks.check() == []


def test_a_network_for_routers(world: World) -> None:
    """On a network made with trivet.source_check=false an instance may have further addresses."""
    for name, value in (("strict", "true"), ("open", "false")):
        world.networks.create(NetworkRequest(name=name, options={"trivet.source_check": value}))
        web, other = world.instance(f"{name}-web", name), world.instance(f"{name}-other", name)
        extra = str(ipaddress.ip_network(world.networks.find(name).subnet)[200])
        web.sh(f"ip addr add {extra}/32 dev eth0")
        assert other.ask(extra, 80).startswith(f"{name}-web") == (name == "open")


@pytest.fixture
def world(short_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(stack, short_path)
