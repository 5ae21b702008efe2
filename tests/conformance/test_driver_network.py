"""The contract, part seven: an instance answers on its network, and reaches its gateway."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conformance.harness import Harness
from tests.conformance.link import link

PORT = 40000 + os.getpid() % 9000


def test_program_answers_on_its_port(instance: Harness) -> None:
    """A server in the instance answers a client on the host."""
    with link(instance.driver.ability().network, instance.owner) as made:
        script = f"while :; do echo hello | nc -l -p {PORT}; done"
        instance.start("sh", "-c", script, attachments=(made.attachment,))
        assert _ask(made.address) == b"hello\n"
        instance.driver.release(instance.plan)


def test_interface_is_named_and_routed(instance: Harness) -> None:
    """The interface has its name, address, size and default route, and the gateway can be reached."""
    instance.only_with("own network")
    with link(instance.driver.ability().network, instance.owner) as made:
        script = f"ip -4 addr show eth0; ip route; nc {made.host} {PORT} < /dev/null"
        with _answering(made.host, b"reached\n"):
            result = instance.shell(script, attachments=(made.attachment,))
        assert "mtu 1500" in result.lines[0]
        assert f"inet {made.address}/30" in result.stdout.decode()
        assert f"default via {made.host} dev eth0" in result.stdout.decode()
        assert result.lines[-1] == "reached", result


def test_traffic_is_counted(instance: Harness) -> None:
    """Bytes received and sent are counted where the network is the instance's own."""
    instance.only_with("own network")
    with link(instance.driver.ability().network, instance.owner) as made:
        script = f"while :; do head -c 200000 /dev/zero | nc -l -p {PORT}; done"
        instance.start("sh", "-c", script, attachments=(made.attachment,))
        assert len(_ask(made.address)) == 200_000
        stats = instance.driver.stats(instance.plan)
        (carried,) = stats.traffic
        assert carried.name == "eth0"
        assert carried.sent > 200_000
        assert carried.received > 1000
        assert min(carried.sent_packets, carried.received_packets) > 10
        instance.driver.release(instance.plan)


@contextmanager
def _answering(address: str, answer: bytes) -> Iterator[None]:
    """Serve one client on the host's end of the link."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)

    with socket.create_server((address, PORT)) as listener:
        listener.settimeout(60)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(timeout=60)


def _ask(address: str) -> bytes:
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection((address, PORT), timeout=5) as connection:
                return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            assert time.monotonic() < deadline, f"nobody answers at {address}"
            time.sleep(0.05)
