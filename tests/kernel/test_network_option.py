"""Options of networks, by what they do to packets, addresses and interfaces."""

from __future__ import annotations

import ipaddress
import subprocess

import pytest
from tests.kernel.world import HOST, NEIGHBOUR, Place, World

from trivet.base.error import Conflict, Exhausted
from trivet.client.schema_network import EndpointRequest, NetworkRequest
from trivet.engine.network.model import InvalidNetwork
from trivet.kernel import rtnetlink

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]

DOCKER = "com.docker.network.bridge."


def shown(place: Place, *words: str) -> str:
    """What a command in a place prints."""
    return subprocess.run([*place._enter, *words], capture_output=True, text=True, check=True, timeout=20).stdout


@pytest.mark.parametrize("value", ["true", "false"])
def test_masquerading(world: World, value: str) -> None:
    """With enable_ip_masquerade=false the neighbour sees the instance's own address, otherwise the host's."""
    world.networks.create(NetworkRequest(name="app", options={f"{DOCKER}enable_ip_masquerade": value}))
    world.neighbour.serve(80)
    web = world.instance("web", "app")
    assert web.ask(NEIGHBOUR, 80) == f"neighbour {HOST if value == 'true' else web.address}"


@pytest.mark.parametrize("value", ["true", "false"])
def test_communication(world: World, value: str) -> None:
    """With enable_icc=false members reach one another by published ports only as others do, and still get out."""
    world.networks.create(NetworkRequest(name="app", options={f"{DOCKER}enable_icc": value}))
    world.neighbour.serve(80)
    web, other = world.instance("web", "app"), world.instance("other", "app")
    assert other.ask(web.address, 80) == (f"web {other.address}" if value == "true" else "nothing")
    assert world.host.ask(web.address, 80).startswith("web ")
    assert other.ask(NEIGHBOUR, 80).startswith("neighbour ")


def test_binding(world: World) -> None:
    """Ports without an address are published on host_binding_ipv4; one that is said has the last word."""
    world.networks.create(NetworkRequest(name="app", options={f"{DOCKER}host_binding_ipv4": "127.0.0.1"}))
    world.instance("web", "app")
    world.publish("web", 8080)
    world.publish("web", 8081, address=HOST)
    assert [port.host_address for port in world.networks.ports("web")] == ["127.0.0.1", HOST]
    assert world.host.ask("127.0.0.1", 8080).startswith("web ")
    assert world.neighbour.ask(HOST, 8080) == "nothing"
    assert world.neighbour.ask(HOST, 8081) == f"web {NEIGHBOUR}"


def test_range_of_addresses(world: World) -> None:
    """Addresses are taken from --ip-range until it is empty; a fixed one may be outside of it."""
    world.networks.create(NetworkRequest(name="app", subnet="10.99.0.0/24", ip_range="10.99.0.64/30"))
    found = [world.networks.attach(f"i{number}", f"i{number}", "netns", _on("app"))[0] for number in range(4)]
    numbers = [ipaddress.ip_interface(use.addresses[0].address).ip for use in found]
    assert sorted(map(str, numbers)) == [f"10.99.0.{number}" for number in (64, 65, 66, 67)]
    with pytest.raises(Exhausted, match=r"10\.99\.0\.0/24"):
        world.networks.attach("more", "more", "netns", _on("app"))
    (fixed,) = world.networks.attach("fixed", "fixed", "netns", _on("app", ip="10.99.0.7"))
    assert fixed.addresses[0].address == "10.99.0.7/24"
    with pytest.raises(InvalidNetwork, match="is not in"):
        world.networks.create(NetworkRequest(name="bad", subnet="10.98.0.0/24", ip_range="10.97.0.0/25"))


def test_name_of_the_bridge(world: World) -> None:
    """The bridge has the name that was wanted, unless somebody has it; it goes with the network."""
    world.networks.create(NetworkRequest(name="app", options={f"{DOCKER}name": "br-app"}))
    link = rtnetlink.link("br-app")
    assert link
    assert (link.kind, world.networks.find("app").interface) == ("bridge", "br-app")
    with pytest.raises(Conflict, match="interface lan of network other exists"):
        world.networks.create(NetworkRequest(name="other", options={f"{DOCKER}name": "lan"}))
    world.networks.remove("app")
    assert rtnetlink.link("br-app") is None


def test_gateway_of_ipv6(world: World) -> None:
    """--gateway6 is the host's address on the network and the way out of its instances."""
    request = NetworkRequest(name="app", subnet6="fd00:99::/64", gateway6="fd00:99::fe", gateway="")
    world.networks.create(request)
    world.host.serve(9000, at="fd00:99::fe")
    web = world.quiet("web", EndpointRequest(network="app"))
    assert "default via fd00:99::fe dev eth0" in shown(web, "ip", "-6", "route")
    assert web.ask("fd00:99::fe", 9000).startswith("host fd00:99::")
    with pytest.raises(InvalidNetwork, match="no host address"):
        world.networks.create(NetworkRequest(name="bad", subnet6="fd00:98::/64", gateway6="fd00:97::1"))


@pytest.mark.parametrize("way", ["mtu", "option"])
def test_mtu(world: World, way: str) -> None:
    """The MTU holds on the bridge, on the host's end and inside; a larger packet that may not be cut is refused."""
    options = {"com.docker.network.driver.mtu": "1300"} if way == "option" else {}
    world.networks.create(NetworkRequest(name="app", mtu=1500 if options else 1300, options=options))
    web = world.quiet("web", EndpointRequest(network="app"))
    (use,) = world.networks.uses("web")
    links = [rtnetlink.link(name) for name in (world.networks.find("app").interface, use.device)]
    assert [link.mtu for link in links if link] == [1300, 1300]
    assert "mtu 1300 " in shown(web, "ip", "link", "show", "eth0")
    probe = (
        "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        "s.setsockopt(socket.IPPROTO_IP, 10, 2); s.connect((sys.argv[1], 9)); s.send(bytes(int(sys.argv[2])))"
    )
    gateway = world.networks.find("app").gateway
    command = [*web._enter, "python3", "-c", probe, gateway]
    assert subprocess.run([*command, "1272"], check=False, timeout=20).returncode == 0
    too_large = subprocess.run([*command, "1273"], capture_output=True, text=True, check=False, timeout=20)
    assert "Message too long" in too_large.stderr


def test_two_sizes(world: World) -> None:
    """An MTU that is no number, or said twice and differently, is refused."""
    for mtu, option in ((1300, "1400"), (1500, "large"), (1500, "20")):
        with pytest.raises(InvalidNetwork, match=option):
            world.networks.create(
                NetworkRequest(name="bad", mtu=mtu, options={"com.docker.network.driver.mtu": option})
            )


def _on(network: str, ip: str = "") -> list[EndpointRequest]:
    return [EndpointRequest(network=network, ip=ip)]
