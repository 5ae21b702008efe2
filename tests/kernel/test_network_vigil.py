"""Self-repair: what somebody does to bridges, links and rules is noticed by itself, mended and told, and no storm."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Callable

import pytest
from tests.kernel.world import HOST, NEIGHBOUR, World

from trivet.client.schema_host import Finding
from trivet.client.schema_network import EndpointRequest, NetworkRequest
from trivet.engine.network import vigil
from trivet.engine.network.network import Networks
from trivet.kernel import rtnetlink

pytestmark = [pytest.mark.needs("root", "nft", "nsenter", "ip"), pytest.mark.usefixtures("own_network")]


def watched(networks: Networks, act: Callable[[], object], enough: Callable[[list[Finding]], bool]) -> list[Finding]:
    """Act while the networks are watched; what was told until it was enough."""

    async def run() -> list[Finding]:
        told: list[Finding] = []
        over = asyncio.Event()

        def tell(finding: Finding) -> None:
            told.append(finding)
            if enough(told):
                over.set()

        task = asyncio.create_task(vigil.watch(networks, tell))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(act)
        async with asyncio.timeout(60):
            await over.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return told

    return asyncio.run(run())


DEEDS = {
    "bridge deleted": ("ip link del {bridge}", "network bridge"),
    "bridge down": ("ip link set {bridge} down", "network bridge"),
    "address deleted": ("ip addr flush dev {bridge}", "network bridge"),
    "link deleted": ("ip link del {device}", "interface {device} of instance web"),
    "link off its bridge": ("ip link set {device} nomaster", "interface {device} of instance web"),
    "ruleset flushed": ("nft flush ruleset", "nftables table inet {table}"),
    "table flushed": ("nft flush table inet {table}", "nftables table inet {table}"),
    "rule inserted": ("nft insert rule inet {table} arriving accept", "nftables table inet {table}"),
    "port taken out": ("nft flush map inet {table} on_tcp", "port 8080/tcp of instance web"),
    "who it is taken out": ("nft flush set bridge {table} own_mac", "instance web"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_was_taken_comes_back(world: World, deed: str) -> None:
    """Somebody's deed is mended by itself: the instance answers as before, at its published port and from inside."""
    web, other = world.instance("web"), world.quiet("other")
    world.publish("web", 8080)
    (use,) = world.networks.uses("web")
    words = {
        "bridge": world.networks.find("bridge").interface,
        "device": use.device,
        "table": world.networks.table,
    }
    command, label = (text.format(**words) for text in DEEDS[deed])
    told = watched(
        world.networks,
        lambda: subprocess.run(command.split(), check=True),
        lambda told: any(each.object == label for each in told),
    )
    assert all(finding.repaired for finding in told)
    assert world.neighbour.ask(HOST, 8080) == f"web {NEIGHBOUR}"
    assert other.ask(web.address, 80) == f"web {other.address}"
    world.neighbour.serve(80)
    assert web.ask(NEIGHBOUR, 80) == f"neighbour {HOST}"
    assert world.networks.check() == []


def test_our_own_changes_are_not_mended(world: World) -> None:
    """Networks and instances that come and go, many at once, are no news to be told."""

    def act() -> None:
        world.networks.create(NetworkRequest(name="app"))
        for number in range(8):
            world.networks.attach(f"i{number}", f"i{number}", "netns", [EndpointRequest(network="app")])
            world.publish(f"i{number}", 9000 + number)
        for number in range(8):
            world.networks.release(f"i{number}")
        world.networks.remove("app")
        rtnetlink.create_bridge("stranger")
        rtnetlink.delete_link("stranger")
        rtnetlink.set_link(world.networks.find("bridge").interface, up=False)

    told = watched(world.networks, act, bool)
    assert [finding.object for finding in told] == ["network bridge"]


def test_no_storm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who undoes every repair is not fought: a few repairs, and then a pause."""
    bridge = world.networks.find("bridge").interface
    monkeypatch.setattr(vigil, "CALM", 0.02)
    repairs: list[Finding] = []

    async def run() -> None:
        def undo(finding: Finding) -> None:
            repairs.append(finding)
            rtnetlink.set_link(bridge, up=False)

        task = asyncio.create_task(vigil.watch(world.networks, undo))
        await asyncio.sleep(0.1)
        rtnetlink.set_link(bridge, up=False)
        await asyncio.sleep(4)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert len(repairs) == vigil.BURST
