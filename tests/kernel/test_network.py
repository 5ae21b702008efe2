"""Networks as a noun: made and removed, joined at each level, with the files that tell names."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from tests.kernel.world import World, join

from trivet.base.error import AlreadyExists, Conflict, InvalidArgument, TrivetError, Unsupported
from trivet.client.schema_network import NetworkRequest
from trivet.engine.network import names
from trivet.engine.network.model import NetworkInUse, NoSuchNetwork
from trivet.kernel import rtnetlink

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]


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
