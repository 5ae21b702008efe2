"""Machines that grow while they run: memory and processors that are plugged in, and given back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.conformance.harness import Harness

from trivet.hypervisor import plugging
from trivet.hypervisor.qmp import Qmp
from trivet.isolation import machine
from trivet.isolation.plan import Mount
from trivet.isolation.resize import TooMuch
from trivet.isolation.saving import CannotSave
from trivet.isolation.vm import VmDriver
from trivet.kernel import procfs

pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20


def resize(harness: Harness, **limits: float) -> None:
    """Give a running machine other limits."""
    plan = msgspec.structs.replace(harness.plan, limits=msgspec.structs.replace(harness.plan.limits, **limits))
    harness.driver.resize(plan)  # type: ignore[attr-defined]
    harness.plan = plan


def total(harness: Harness) -> int:
    """Ask the guest's kernel how much memory it has, in MiB."""
    words = harness.exec("sh", "-c", "grep MemTotal /proc/meminfo").wait().text.split()
    return int(words[1]) >> 10


def stock(harness: Harness) -> plugging.Stock:
    """Ask QEMU what it has."""
    with Qmp(Path(harness.plan.directory, machine.QMP)) as qmp:
        return plugging.stock(qmp)


def until(true: Callable[[], bool]) -> None:
    """Wait for what the guest does in its own time."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_running_machine_gets_memory_and_gives_it_back(
    driver: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path
) -> None:
    """More memory than at the start can be used; taken by balloon at first, it is QEMU's no more once all of it is."""
    harness = make(driver)
    scratch = Mount(kind="tmpfs", target="/tmp", size=600 * MEBIBYTE)
    harness.start("sleep", "600", memory=256 * MEBIBYTE, mounts=(scratch,))
    before = total(harness)
    resize(harness, memory=640 * MEBIBYTE)
    until(lambda: total(harness) > before + 300)
    filled = harness.exec("sh", "-c", "dd if=/dev/zero of=/tmp/x bs=1M count=300; wc -c < /tmp/x; rm /tmp/x")
    assert filled.wait(240).text == str(300 * MEBIBYTE)
    with pytest.raises(CannotSave, match="has been given memory or processors"):
        driver.save(harness.plan, tmp_path / "saved", go_on=True)
    until(lambda: driver.footprint(harness.plan).used < 200 * MEBIBYTE)  # it tells once a second
    resize(harness, memory=300 * MEBIBYTE)
    assert stock(harness).memory == 384 * MEBIBYTE
    until(lambda: driver.footprint(harness.plan).held == 300 * MEBIBYTE)
    resize(harness, memory=256 * MEBIBYTE)
    assert stock(harness).memory == 0
    until(lambda: abs(total(harness) - before) < 8)
    driver.save(harness.plan, tmp_path / "saved", go_on=True)


def test_a_running_machine_gets_a_processor_and_gives_it_back(
    driver: VmDriver, make: Callable[[VmDriver], Harness]
) -> None:
    """The program that runs has as many processors as `update --cpus` says, up to the host's."""
    harness = make(driver)
    harness.start("sleep", "600", cpus=1.0)
    seen = []
    for count in (2.0, 1.0, 1.5):
        resize(harness, cpus=count)
        seen.append(harness.exec("nproc").wait().text)
    assert seen == ["2", "1", "2"]


def test_more_than_the_host_has_is_refused(driver: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """Who asks for more memory or processors than the host has hears how much there can be, and nothing changes."""
    harness = make(driver)
    harness.start("sleep", "600")
    for limits in ({"memory": procfs.memory()[0] * 2}, {"cpus": float(stock(harness).most + 1)}):
        with pytest.raises(TooMuch, match="more than"):
            resize(harness, **limits)
    assert stock(harness).memory == 0
    assert harness.exec("nproc").wait().text == "1"
