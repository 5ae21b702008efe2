"""Control groups on the machine as it is, and layouts that other machines have."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.kernel import cgroup
from trivet.kernel.cgroup import Group
from trivet.kernel.cgroup_record import DeviceRule, Hierarchy, Resources

V1 = """
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/perf_event rw - cgroup cgroup rw,perf_event
37 31 0:34 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""


@pytest.fixture
def group() -> Iterator[Group]:
    made = Group(cgroup.detect(), f"trivet-group-{os.getpid()}/one")
    made.create(Resources())
    yield made
    made.kill()
    made.remove()
    Group(made.layout, f"trivet-group-{os.getpid()}").remove()


def inside(group: Group, *command: str) -> subprocess.Popen[bytes]:
    """Start a program in the group the way the launcher does: it writes 0 itself."""

    def join() -> None:
        for write in group.joins:
            Path(write.path).write_text(write.value)
        if group.unified:
            Path(group.unified, "cgroup.procs").write_text("0")

    return subprocess.Popen(command, preexec_fn=join)


def test_layout_version_1() -> None:
    """Version 1 mounts are found by controller or name; those we don't use are left alone."""
    layout = cgroup.detect(V1)
    assert layout.mode == "v1"
    assert [(h.mount, h.controllers, h.name) for h in layout.hierarchies] == [
        ("/sys/fs/cgroup/cpu,cpuacct", ("cpu", "cpuacct"), ""),
        ("/sys/fs/cgroup/memory", ("memory",), ""),
        ("/sys/fs/cgroup/systemd", (), "name=systemd"),
    ]


def test_writes_of_both_versions() -> None:
    """The same limits become each version's own files."""
    limits = Resources(memory=64 << 20, swap=96 << 20, quota=50000, period=100000, pids=10, shares=512)
    old = Group(cgroup.Layout((Hierarchy(version=1, mount="/c", controllers=("memory", "cpu", "pids")),)), "g")
    new = Group(cgroup.Layout((Hierarchy(version=2, mount="/u", controllers=("memory", "cpu", "pids")),)), "g")
    assert [(w.path, w.value) for w in old.writes(limits)] == [
        ("/c/g/memory.limit_in_bytes", "67108864"),
        ("/c/g/memory.memsw.limit_in_bytes", "100663296"),
        ("/c/g/cpu.shares", "512"),
        ("/c/g/cpu.cfs_period_us", "100000"),
        ("/c/g/cpu.cfs_quota_us", "50000"),
        ("/c/g/pids.max", "10"),
    ]
    assert [(w.path, w.value) for w in new.writes(limits)] == [
        ("/u/g/memory.max", "67108864"),
        ("/u/g/memory.swap.max", "33554432"),
        ("/u/g/cpu.weight", "20"),
        ("/u/g/cpu.max", "50000 100000"),
        ("/u/g/pids.max", "10"),
    ]


def test_device_rules_spell_as_the_kernel_reads_them() -> None:
    """A device rule names type, numbers (or every number) and access."""
    assert DeviceRule(allow=False).text() == "a"
    assert DeviceRule(allow=True, type="c", major=1, minor=3).text() == "c 1:3 rwm"
    assert DeviceRule(allow=True, type="c", major=136, access="rw").text() == "c 136:* rw"


@pytest.mark.needs("root")
def test_groups_are_open_to_all() -> None:
    """A group and its parents can be walked through by anybody, whatever the umask is: namespaces show them."""
    made = Group(cgroup.detect(), f"trivet-group-{os.getpid()}/under/umask")
    before = os.umask(0o077)
    try:
        made.create(Resources())
        modes = [
            path.stat().st_mode & 0o777
            for directory in made.directories
            for path in (Path(directory), *list(Path(directory).parents)[:2])
        ]
        assert modes
        assert set(modes) == {0o755}
    finally:
        os.umask(before)
        made.remove()
        Group(made.layout, f"trivet-group-{os.getpid()}").remove()


@pytest.mark.needs("root")
def test_a_parent_that_another_has_just_made_is_filled_too() -> None:
    """A group below a parent whose cpuset is still empty takes programs: two starts may make the parent at once."""
    layout = cgroup.detect()
    parent = f"trivet-group-{os.getpid()}"
    made, above = Group(layout, f"{parent}/under"), Group(layout, parent)
    for directory in above.directories:
        Path(directory).mkdir()
    try:
        made.create(Resources())
        assert inside(made, "true").wait() == 0
    finally:
        made.remove()
        above.remove()


def test_program_joins_every_hierarchy(group: Group) -> None:
    """A program that joined is in the group of every hierarchy, and listed."""
    process = inside(group, "sleep", "60")
    try:
        lines = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
        assert {line.rsplit(":", 1)[1] for line in lines} == {f"/{group.path}"}
        assert group.processes() == [process.pid]
    finally:
        group.kill()
        assert process.wait(timeout=5) == -9


def test_limits_are_set_and_changed(group: Group) -> None:
    """Limits can be lowered and raised again, memory and memory+swap together."""
    for size in (64 << 20, 16 << 20, 128 << 20):
        group.apply(Resources(memory=size, swap=2 * size, pids=7))
        assert group.usage().memory_limit == size
    group.apply(Resources(memory=-1, swap=-1, pids=-1))
    assert group.usage().memory_limit == 0


def test_usage_counts_processor_time(group: Group) -> None:
    """Processor time used inside is counted."""
    process = inside(group, "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    process.wait(timeout=30)
    assert group.usage().cpu > 1_000_000


def test_freeze_stops_and_thaw_continues(group: Group) -> None:
    """A frozen group uses no processor time, can be thawed, and can be killed while frozen."""
    process = inside(group, "sh", "-c", "while :; do :; done")
    time.sleep(0.05)
    group.freeze(True)
    assert group.frozen()
    before = group.usage().cpu
    time.sleep(0.1)
    assert group.usage().cpu - before < 5_000_000
    group.freeze(False)
    assert not group.frozen()
    group.freeze(True)
    group.kill()
    assert process.wait(timeout=5) == -9


def test_kill_ends_a_fork_bomb(group: Group) -> None:
    """Processes that fork faster than they are listed are killed all the same."""
    group.apply(Resources(pids=40))
    process = inside(group, "sh", "-c", "f() { while :; do f & done 2>/dev/null; }; f")
    time.sleep(0.2)
    group.kill()
    process.wait(timeout=5)
    assert group.processes() == []


def test_remove_takes_groups_below(group: Group) -> None:
    """Removal takes groups made below it along and is idempotent."""
    for directory in group.directories:
        Path(directory, "below").mkdir()
    group.remove()
    group.remove()
    assert not any(Path(directory).exists() for directory in group.directories)
