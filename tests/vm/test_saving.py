"""Machines that are saved while their program runs, and others that begin there."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.conformance.harness import Harness, Session

from trivet.base.error import Corrupt
from trivet.hypervisor.qmp import Qmp
from trivet.isolation import machine
from trivet.isolation.plan import Mount
from trivet.isolation.saving import CannotSave, SavedByAnother
from trivet.isolation.vm import VmDriver

pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20
COUNTER = "n=0; while read line; do n=$((n+1)); echo $line >> /said; echo $n $line $(cat /said | wc -l); done"


def begin(harness: Harness, other: Harness, place: Path) -> Session:
    """Let `harness` go on as what was saved of `other`."""
    harness.plan = msgspec.structs.replace(
        other.plan,
        id=harness.plan.id,
        name=harness.plan.name,
        directory=harness.plan.directory,
        cgroup=harness.plan.cgroup,
        log=harness.plan.log,
        root=harness.plan.root,
        hostname=f"copy-{harness.plan.id[:4]}",
    )
    shutil.copy(place / "drive", harness.plan.root.upper)
    driver = harness.driver
    assert isinstance(driver, VmDriver)
    driver.prepare(harness.plan)
    with driver.saved(place) as saved:
        session = Session(driver.restore(harness.plan, saved, other.plan))
    session.channel.attach()
    return session.go(harness.plan.program)


def generation(harness: Harness) -> str:
    """Ask QEMU for the VM generation id."""
    with Qmp(Path(harness.plan.directory, machine.QMP)) as qmp:
        return str(qmp.execute("query-vm-generation-id")["guid"])


def test_copies_go_on_from_where_they_were_saved(
    driver: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path
) -> None:
    """Two copies have the original's variables and files, take input, and know nothing of one another."""
    first = make(driver)
    session = first.start("sh", "-c", COUNTER, stdin=True)
    session.channel.write(b"a\nb\n")
    session.until(b"2 b 2\n")
    driver.save(first.plan, tmp_path / "saved", go_on=True)
    machines = [first, make(driver), make(driver)]
    copies = [begin(each, first, tmp_path / "saved") for each in machines[1:]]
    assert len({generation(each) for each in machines}) == 3
    for number, each in enumerate((session, *copies)):
        each.channel.write(b"%d\n" % number)
        assert each.until(b" 3\n").endswith(b"3 %d 3\n" % number)
    session.channel.write(b"z\n")
    assert session.until(b" 4\n").endswith(b"4 z 4\n")
    assert first.exec("hostname").wait().stdout == b"box\n"


def test_nobody_stays_in_front_of_others(driver: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path) -> None:
    """A machine that was saved, and who saved it, are scheduled as before."""
    harness = make(driver)
    harness.start("sleep", "600")
    before = threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)
    driver.save(harness.plan, tmp_path / "saved", go_on=True)
    pid = harness.status().pid
    threads = [before[0], *(int(each.name) for each in Path(f"/proc/{pid}/task").iterdir())]
    assert {os.sched_getscheduler(number) for number in threads} == {os.SCHED_OTHER}
    assert {os.getpriority(os.PRIO_PROCESS, number) for number in threads} == {before[1]}


def test_limits_change_while_a_machine_runs(
    driver: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path
) -> None:
    """Memory is taken and given within what the machine began with, and a copy can begin with less."""
    harness = make(driver)
    session = harness.start("sh", "-c", COUNTER, stdin=True, memory=384 * MEBIBYTE, cpus=1.0)
    before = driver.footprint(harness.plan).held

    def resize(**limits: float) -> None:
        plan = msgspec.structs.replace(harness.plan, limits=msgspec.structs.replace(harness.plan.limits, **limits))
        driver.resize(plan)
        harness.plan = plan
        deadline = time.monotonic() + 30
        while driver.footprint(plan).held != plan.limits.memory:
            assert time.monotonic() < deadline, driver.footprint(plan)
            time.sleep(0.1)

    resize(memory=256 * MEBIBYTE, cpus=0.5)
    session.channel.write(b"a\n")
    session.until(b"1 a 1\n")
    driver.save(harness.plan, tmp_path / "saved", go_on=True)
    resize(memory=384 * MEBIBYTE)
    assert driver.footprint(harness.plan).held == before
    copy = begin(make(driver), harness, tmp_path / "saved")
    copy.channel.write(b"b\n")
    assert copy.until(b" 2\n").endswith(b"2 b 2\n")


def test_what_was_saved_elsewhere_or_is_damaged_is_refused(
    driver: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path
) -> None:
    """Another size of machine, a changed byte and shared files are named, and the original goes on."""
    first, place = make(driver), tmp_path / "saved"
    session = first.start("sh", "-c", COUNTER, stdin=True)
    driver.save(first.plan, place, go_on=True)
    key = (place / "key").read_text()
    (place / "key").write_text("0" + key[1:] if key[0] != "0" else "1" + key[1:])
    with pytest.raises(SavedByAnother):
        begin(make(driver), first, place)
    (place / "key").write_text(key)
    with (place / "memory").open("r+b") as file:
        file.seek(64 * MEBIBYTE)
        file.write(b"damage")
    with pytest.raises(Corrupt):
        begin(make(driver), first, place)
    sharing = msgspec.structs.replace(first.plan, mounts=(Mount(kind="bind", source="/tmp", target="/data"),))
    with pytest.raises(CannotSave, match="/data"):
        driver.check_saving(sharing)
    session.channel.write(b"a\n")
    session.until(b"1 a 1\n")
