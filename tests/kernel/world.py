"""A host with networks, an engine's without the engine, and a neighbour: real namespaces for tests of packets.

                ┌──────────── host (a namespace of the test's own) ─────────────┐
 neighbour ─────┤ 198.51.100.1   bridge a ── instances   bridge b ── instances  │
198.51.100.2    └───────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from trivet.client.schema_network import EndpointRequest, PortRequest
from trivet.engine.network import namespace
from trivet.engine.network.model import Form
from trivet.engine.network.network import Networks
from trivet.isolation import specification
from trivet.isolation.plan import Attachment
from trivet.kernel import rtnetlink
from trivet.launch.operation import AddAddress, AddRoute, JoinPath, LinkUp
from trivet.launch.spawn import run
from trivet.store.record import Records

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

HOLDER = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
held = []
while True:
    held.append(server.accept()[0])
    held[-1].sendall(b"held")
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


MACHINE = """
import fcntl, os, selectors, struct, subprocess, sys
from trivet.kernel.namespace import inside
from trivet.kernel.tap import open_tap
device, path, mac = sys.argv[1:]
outer = open_tap(device)
with inside(os.open(path, os.O_RDONLY)):
    inner = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(inner, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x5002))  # a tap with the same headers
    subprocess.run(["ip", "link", "set", "eth0", "address", mac], check=True)
chosen = selectors.DefaultSelector()
for here, there in ((outer, inner), (inner, outer)):
    chosen.register(here, selectors.EVENT_READ, there)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        try:
            os.write(key.data, os.read(key.fd, 1 << 17))
        except OSError:
            pass  # the card is down
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
        self._begin(SERVER, self.name, protocol, str(port), at)

    def hold(self, port: int) -> None:
        """Greet who connects to a port, and say no more for as long as the test goes."""
        self._begin(HOLDER, str(port))

    def _begin(self, program: str, *arguments: str) -> None:
        words = [*self._enter, sys.executable, "-c", program, *arguments]
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

    def machine(self, name: str, *wishes: EndpointRequest) -> Place:
        """An attached machine, played by a program that has its tap and a namespace with the card at the other end."""
        (use,) = self.networks.attach(name, name, "tap", wishes)
        path = self.base / f"machine-{name}"
        namespace.create(path)
        self._stack.callback(namespace.remove, path)
        words = [sys.executable, "-c", MACHINE, use.device, str(path), use.mac]
        process = self._stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE))
        self._stack.callback(process.kill)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        card = msgspec.structs.replace(use, kind="netns", device="eth0")
        run([JoinPath(str(path), namespace.CLONE_NEWNET), *specification.network((card,))])
        return Place(self._stack, name, str(path), use.addresses[0].address.partition("/")[0])

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
