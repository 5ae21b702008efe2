"""Control group hierarchies are the whole machine's: tests that count them, and those that make one, take turns."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.runtime import until

LOCK = Path(tempfile.gettempdir(), "trivet-tests-hierarchy.lock")


@contextmanager
def hierarchies(*, changed: bool = False) -> Iterator[None]:
    """Let no other test make a hierarchy meanwhile; or with `changed` let none count them until all are as before."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if changed else fcntl.LOCK_SH)
        before = Path("/proc/self/cgroup").read_text()
        yield
        if changed:
            until(lambda: Path("/proc/self/cgroup").read_text().count("\n") <= before.count("\n"), 10)
