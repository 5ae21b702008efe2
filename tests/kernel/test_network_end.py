"""What is left of an instance's network when the instance has ended: nothing, whoever was talking to it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from tests.kernel.world import NEIGHBOUR, World

from trivet.client.schema_network import EndpointRequest, NetworkRequest
from trivet.kernel import rtnetlink

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]

# Takes a connection and reads nothing, until it is told to: says then how the connection ended.
DEAF = """
import socket, sys
server = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
connection, _ = server.accept()
sys.stdin.readline()
try:
    while connection.recv(1 << 20):
        pass
    print("ended")
except ConnectionResetError:
    print("reset")
"""
# Sends until the other side takes no more.
FULL = """
import socket, sys
client = socket.create_connection((sys.argv[1], 7000), 5)
client.settimeout(0.5)
try:
    while True:
        client.send(bytes(1 << 16))
except TimeoutError:
    pass
"""


@pytest.mark.parametrize("version", [4, 6])
def test_a_silent_neighbour(world: World, version: int) -> None:
    """An instance whose neighbour reads nothing is off its network when it ended, and the neighbour hears of it."""
    world.networks.create(NetworkRequest(name="six", ipv6=True))
    world.host.sh("ip addr add 2001:db8:1::1/64 dev lan nodad")
    world.neighbour.sh(
        "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip addr add 2001:db8:1::2/64 dev eth0 nodad;"
        "ip route add default via 2001:db8:1::1"
    )
    web = world.quiet("web", EndpointRequest(network="six"))
    (use,) = world.networks.uses("web")
    deaf = [*world.neighbour._enter, sys.executable, "-c", DEAF]
    with subprocess.Popen(deaf, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        address = NEIGHBOUR if version == 4 else "2001:db8:1::2"
        subprocess.run([*web._enter, sys.executable, "-c", FULL, address], check=True, timeout=30)
        assert rtnetlink.link(use.device)
        world.networks.detach("web")
        deadline = time.monotonic() + 30
        while rtnetlink.link(use.device):
            assert time.monotonic() < deadline, "its interface is still there"
            time.sleep(0.05)
        assert process.communicate("go\n", timeout=30)[0] == "reset\n"
