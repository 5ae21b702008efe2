"""How much gets through in a while: bytes counted where they arrive, against what the rate and its burst allow."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.kernel.world import Place, World

from trivet.client.schema_network import EndpointRequest
from trivet.engine.network import guard

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]

SECONDS = 2
SINK = """
import socket, sys
server = socket.create_server(("0.0.0.0", 5001))
print("ready", flush=True)
connection, _ = server.accept()
total = 0
try:
    while data := connection.recv(1 << 16):
        total += len(data)
except ConnectionResetError:
    pass
print(total, flush=True)
"""
SOURCE = """
import socket, sys, time
client = socket.create_connection((sys.argv[1], 5001), 10)
client.settimeout(0.2)
end, data = time.monotonic() + float(sys.argv[2]), bytes(1 << 14)
while time.monotonic() < end:
    try:
        client.send(data)
    except TimeoutError:
        pass
print(time.monotonic() - end + float(sys.argv[2]))
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))  # what waits is thrown away
"""


def carried(source: Place, sink: Place) -> tuple[int, float]:
    """Send as fast as it goes; the bytes that arrived, and in how many seconds."""
    command = [*sink._enter, sys.executable, "-c", SINK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        sending = [*source._enter, sys.executable, "-c", SOURCE, sink.address, str(SECONDS)]
        spent = subprocess.run(sending, capture_output=True, text=True, check=True, timeout=60).stdout
        words = process.stdout.read().split()
    return int(words[0]) if words else 0, float(spent)


@pytest.mark.parametrize("form", ["netns", "tap"])
def test_rates(world: World, form: str) -> None:
    """No more arrives than a rate allows, both ways, also after it was changed; without one it is many times that."""
    web, other = (world.quiet if form == "netns" else world.machine)("web"), world.quiet("other")
    (use,) = world.networks.uses("web")
    ways = {"out": (web, other), "in": (other, web)}
    free = {way: carried(*ways[way])[0] for way in ways}
    for rates in ({"in": 8_000_000, "out": 4_000_000}, {"in": 2_000_000, "out": 16_000_000}):
        world.networks.pace("web", "bridge", rates["in"], rates["out"])
        for way, places in ways.items():
            got, spent = carried(*places)
            rate = rates[way] / 8
            assert got <= rate * (spent + 1) + max(rate / guard.BURST, guard.LEAST) + (1 << 17), (way, rates)
            assert got < free[way] / 3
            assert got > 1000
    world.networks.pace("web", "bridge", 0, 0)
    assert carried(web, other)[0] > 16_000_000 / 8 * SECONDS
    assert "limit" not in world.networks.tables()[1].render()
    assert use.rate_in == 0


def test_a_rate_from_the_start(world: World) -> None:
    """An instance that is attached with a rate has it from its first packet, and those beside it have none."""
    web = world.quiet("web", EndpointRequest(network="bridge", rate_out=1_000_000))
    other = world.quiet("other")
    assert carried(web, other)[0] < 1_000_000 / 8 * (SECONDS + 2) + guard.LEAST * 2
    assert world.networks.check() == []
