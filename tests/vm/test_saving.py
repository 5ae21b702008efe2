"""Machines that are saved while their program runs, and others that begin there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.conformance.harness import Harness, Session

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


def test_copies_go_on_from_where_they_were_saved(
    driver: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path
) -> None:
    """Two copies have the original's variables and files, take input, and know nothing of one another."""
    first = make(driver)
    session = first.start("sh", "-c", COUNTER, stdin=True)
    session.channel.write(b"a\nb\n")
    session.until(b"2 b 2\n")
    pause = driver.save(first.plan, tmp_path / "saved", go_on=True)
    print("stood still", pause)
    copies = [begin(make(driver), first, tmp_path / "saved") for _ in range(2)]
    for number, each in enumerate((session, *copies)):
        each.channel.write(b"%d\n" % number)
        assert each.until(b" 3\n").endswith(b"3 %d 3\n" % number)
    session.channel.write(b"z\n")
    assert session.until(b" 4\n").endswith(b"4 z 4\n")
    assert first.exec("hostname").wait().stdout == b"box\n"
