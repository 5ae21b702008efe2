"""What a machine's guest doesn't use goes back to the host, and comes again when it is needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conformance.harness import Harness

from trivet.isolation import elastic, fork
from trivet.isolation.vm import VmDriver

pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20
LARGE, SMALL = 384 * MEBIBYTE, 128 * MEBIBYTE


def until(done: Callable[[], bool], complaint: str, seconds: float = 60) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.05)


def held(driver: VmDriver, harness: Harness) -> int:
    """Tell how much memory the guest has."""
    return driver.footprint(harness.plan).held


def resident(driver: VmDriver, harness: Harness) -> int:
    """Tell how much of the host's memory the machine takes, all included."""
    statm = Path("/proc", str(driver.status(harness.plan).pid), "statm").read_text()
    return int(statm.split()[1]) * 4096


def test_idle_memory_goes_to_the_host_and_comes_back(driver: VmDriver, machine: Harness) -> None:
    """A fork gives the host what its program freed, by itself, and the rest when it is told; it can have it again."""
    session = machine.start("sh", "-c", "inside eat 200 & read go; kill $!; echo done; read go; inside eat 200",
                            stdin=True, memory=LARGE, memory_reservation=SMALL)  # fmt: skip
    session.until(b"full\n")
    assert fork.noted(machine.plan) == fork.FORKED
    full = resident(driver, machine)
    session.channel.write(b"\n")
    session.until(b"done\n")
    until(lambda: resident(driver, machine) < full - 150 * MEBIBYTE, "free pages aren't reported")
    assert held(driver, machine) == LARGE
    driver.allot(machine.plan, SMALL)
    until(lambda: held(driver, machine) <= SMALL + MEBIBYTE, "the guest gives nothing")
    assert resident(driver, machine) < full - 150 * MEBIBYTE
    driver.allot(machine.plan, LARGE)
    session.stdout = b""
    session.channel.write(b"\n")
    session.until(b"full\n")
    assert held(driver, machine) == LARGE


def test_a_program_at_its_bound_waits(driver: VmDriver, machine: Harness) -> None:
    """A program that wants more than its machine may have is slowed down, isn't killed, and goes on when it may."""
    session = machine.start(
        "sh", "-c", "read go; exec inside eat 220", stdin=True, memory=LARGE, memory_reservation=SMALL
    )
    driver.allot(machine.plan, SMALL)
    until(lambda: held(driver, machine) <= SMALL + MEBIBYTE, "the guest gives nothing")
    session.channel.write(b"\n")
    until(lambda: driver.footprint(machine.plan).starved, "nobody waits")
    time.sleep(3)
    assert b"full" not in session.stdout
    assert held(driver, machine) <= SMALL + 32 * MEBIBYTE
    driver.allot(machine.plan, LARGE)
    session.until(b"full\n")
    assert "oom_kill 0" in machine.exec("sh", "-c", "cat /sys/fs/cgroup/memory.events").wait().text


def test_a_guest_is_not_left_with_nothing(driver: VmDriver, machine: Harness) -> None:
    """Whatever is asked of it, a guest keeps what its kernel and agent need."""
    machine.start("sleep", "600", memory=LARGE, memory_reservation=SMALL)
    driver.allot(machine.plan, MEBIBYTE)
    until(lambda: held(driver, machine) <= elastic.SMALLEST + MEBIBYTE, "the guest gives nothing")
    assert machine.exec("true").wait().code == 0
    assert held(driver, machine) >= elastic.SMALLEST
