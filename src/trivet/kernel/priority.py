"""How soon a thread gets a processor that others want too."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def first() -> None:
    """Let the calling thread have its turn before others, from now on; without the right to that, nothing changes.

    By a real-time policy (sched(7)): niceness counts among the threads of one group only.
    """
    with suppress(OSError):
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_RR, os.sched_param(1))


@contextmanager
def going_first() -> Iterator[None]:
    """Let the calling thread, and those it makes, have their turn before others while the block runs: a moment."""
    thread = threading.get_native_id()
    policy, parameter = os.sched_getscheduler(thread), os.sched_getparam(thread)
    first()
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(thread, policy, parameter)
