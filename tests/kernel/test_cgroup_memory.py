"""A group's memory: what it has, and what it may have for now. Version 1 here, version 2 where the machine has that."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trivet.kernel import cgroup, cgroup_memory
from trivet.kernel.cgroup_record import Resources

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root")

MEBIBYTE = 1 << 20
LIMIT = 128 * MEBIBYTE
EATER = """
import sys, time
kept = []
for line in sys.stdin:
    for _ in range(int(line)):
        kept.append(bytearray(b"x" * (1 << 20)))
    print("full", flush=True)
"""


@pytest.fixture
def group() -> Iterator[cgroup.Group]:
    """A group of 128 MiB."""
    made = cgroup.Group(cgroup.detect(), f"trivet-test-{os.getpid()}/memory")
    made.create(Resources(memory=LIMIT))
    yield made
    made.kill()
    made.remove()
    cgroup.Group(made.layout, made.path.rpartition("/")[0]).remove()


@pytest.fixture
def eater(group: cgroup.Group) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the group that takes as many MiB more as it is told."""
    process = subprocess.Popen([sys.executable, "-c", EATER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    group.add(process.pid)
    yield process
    process.kill()
    process.communicate()


def eat(process: subprocess.Popen[bytes], size: int) -> None:
    """Tell it, and don't wait."""
    assert process.stdin
    process.stdin.write(b"%d\n" % size)
    process.stdin.flush()


def full(process: subprocess.Popen[bytes]) -> None:
    """Wait until it has what it wanted."""
    assert process.stdout
    assert process.stdout.readline() == b"full\n"


def until(done: Callable[[], bool], complaint: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.05)


def test_what_a_group_has_is_measured(group: cgroup.Group, eater: subprocess.Popen[bytes]) -> None:
    """Memory a program uses is held and used; without a bound, the limit is it."""
    eat(eater, 40)
    full(eater)
    found = cgroup_memory.measure(group)
    assert 40 * MEBIBYTE <= found.used <= found.held <= 60 * MEBIBYTE
    assert (found.bound, found.starved) == (LIMIT, False)


def test_a_program_at_its_bound_waits(group: cgroup.Group, eater: subprocess.Popen[bytes]) -> None:
    """What wants more than its bound waits or is slowed down, isn't killed, and goes on when it may."""
    cgroup_memory.bound(group, 64 * MEBIBYTE, LIMIT)
    eat(eater, 100)
    until(lambda: cgroup_memory.measure(group).starved, "nobody waits")
    time.sleep(1)
    found = cgroup_memory.measure(group)
    assert found.held < 80 * MEBIBYTE
    assert eater.poll() is None
    cgroup_memory.bound(group, LIMIT, LIMIT)
    full(eater)
    assert not cgroup_memory.measure(group).starved
    assert group.usage().out_of_memory == 0


def test_at_its_limit_it_is_as_it_was(group: cgroup.Group, eater: subprocess.Popen[bytes]) -> None:
    """A bound that was lifted leaves the group its limit, and the kernel's killer its work."""
    cgroup_memory.bound(group, 64 * MEBIBYTE, LIMIT)
    cgroup_memory.bound(group, LIMIT, LIMIT)
    eat(eater, 400)
    assert eater.wait(20) == -9
    assert group.usage().out_of_memory > 0


def test_cache_goes_first(group: cgroup.Group, tmp_path: Path) -> None:
    """A bound below what is held takes page cache, and what is used stays."""
    with (tmp_path / "file").open("wb") as file:
        script = (
            f"import os; f = open(0, 'rb'); os.write({file.fileno()}, b'x' * (60 << 20)); os.fsync({file.fileno()})"
        )
        writer = subprocess.Popen([sys.executable, "-c", f"input(); {script}"], stdin=subprocess.PIPE,
                                  pass_fds=(file.fileno(),))  # fmt: skip
        group.add(writer.pid)
        writer.communicate(b"\n")
    before = cgroup_memory.measure(group).held
    if before < 40 * MEBIBYTE:
        pytest.skip("files there are in memory anyway")
    cgroup_memory.bound(group, 24 * MEBIBYTE, LIMIT)
    until(lambda: cgroup_memory.measure(group).held <= 26 * MEBIBYTE or _reclaim(group), "the cache stays")


def _reclaim(group: cgroup.Group) -> bool:
    """On version 2 a bound works when somebody allocates: one page is enough."""
    subprocess.run(["sh", "-c", "true"], preexec_fn=lambda: group.add(os.getpid()), check=True)
    return False


def test_a_group_that_is_gone_has_nothing() -> None:
    """Measuring a group that ended is no error; bounding it is."""
    gone = cgroup.Group(cgroup.detect(), "trivet-test-gone")
    assert cgroup_memory.measure(gone).held == 0
    with pytest.raises(FileNotFoundError):
        cgroup_memory.bound(gone, MEBIBYTE, LIMIT)


def test_pressure_is_read() -> None:
    """The share of time in which something waited for memory is a fraction."""
    text = "some avg10=12.50 avg60=1.00 avg300=0.10 total=1234\nfull avg10=1.00 avg60=0 avg300=0 total=1\n"
    assert cgroup_memory.stalled(text) == 0.125
    assert cgroup_memory.stalled("") == 0
    assert 0 <= cgroup_memory.stalled() <= 1
