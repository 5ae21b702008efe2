"""Networks of a machine of its own that come and go while it runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS, asked, said

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS)]
LIST = "$(ls /sys/class/net | tr '\\n' ' ')"


@pytest.fixture(scope="module")
def machine(engine: Daemon, tiny: list[str]) -> Iterator[str]:
    """A machine that was switched on without a network, and then got two."""
    for name in ("front", "back"):
        engine.ok("network", "create", name)
    engine.ok("vm", "create", "wired", *tiny, "--start")
    said(engine, "wired", "tiny# ")
    asked(engine, "wired", f"echo has {LIST}", "has lo")
    engine.ok("network", "connect", "front", "wired")
    engine.ok("network", "connect", "back", "wired")
    asked(engine, "wired", f"echo has {LIST}", "has eth0 eth1 lo")
    for interface, network in (("eth0", "front"), ("eth1", "back")):
        address = addresses(engine, "wired")[network]
        asked(
            engine,
            "wired",
            f"ip link set {interface} up; ip addr add {address} dev {interface} && echo {network} is se''t",
            f"{network} is set",
        )
    yield "wired"
    engine.ok("vm", "rm", "-f", "wired")
    for name in ("front", "back"):
        engine.ok("network", "rm", name)


def addresses(engine: Daemon, name: str) -> dict[str, str]:
    """Give a machine's addresses by network."""
    uses = engine.client.instances.get(name).networks
    return {use.network: use.addresses[0] for use in uses if use.addresses}


def gateway(engine: Daemon, name: str, network: str) -> str:
    """Give the address of the network's gateway."""
    return addresses(engine, name)[network].rpartition(".")[0] + ".1"


def test_a_network_is_plugged_in_and_carries(engine: Daemon, machine: str) -> None:
    """With the address that trivet says the guest reaches the gateway."""
    for network in ("front", "back"):
        line = f"ping -c 1 -W 20 {gateway(engine, machine, network)} >/dev/null && echo {network} ans''wers"
        asked(engine, machine, line, f"{network} answers")


def test_it_is_saved_with_what_was_plugged_in(engine: Daemon, machine: str) -> None:
    """A snapshot with memory comes back with the interfaces that were plugged in, and they carry."""
    engine.ok("snapshot", machine, "wired")
    engine.ok("snapshot", "revert", machine, "wired")
    line = f"ping -c 1 -W 20 {gateway(engine, machine, 'front')} >/dev/null && echo again ans''wers"
    asked(engine, machine, line, "again answers")


def test_a_network_is_unplugged_and_stays_so(engine: Daemon, machine: str) -> None:
    """The guest loses the interface, nothing of it stays on the host, and the memory isn't saved with a gap in it."""
    engine.ok("network", "disconnect", "front", machine)
    asked(engine, machine, f"echo left {LIST}", "left eth1 lo")
    assert list(addresses(engine, machine)) == ["back"]
    assert "a network in the middle was taken" in engine.trivet("snapshot", machine, "gap").stderr.decode()
    assert "is not connected" in engine.trivet("network", "disconnect", "front", machine).stderr.decode()

    # What was connected while it ran is there after it was off; a fifth is refused, and what it left off is free.
    engine.ok("vm", "stop", "-f", machine)
    engine.ok("vm", "start", machine)
    asked(engine, machine, f"echo came {LIST}", "came eth0 lo")
    for number in range(4):
        engine.ok("network", "create", f"more{number}")
    try:
        for number in range(3):
            engine.ok("network", "connect", f"more{number}", machine)
        refused = engine.trivet("network", "connect", "more3", machine)
        assert "has all 4 interfaces" in refused.stderr.decode()
        assert "more3" not in addresses(engine, machine)
        engine.ok("vm", "stop", "-f", machine)
        for number in range(3):
            engine.ok("network", "disconnect", f"more{number}", machine)
    finally:
        for number in range(4):
            engine.ok("network", "rm", f"more{number}")
