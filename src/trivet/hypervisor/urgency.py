"""Being served first by a busy host's scheduler, for the moment that something stands still."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_FIRST = -20


@contextlib.contextmanager
def urgent(process: int) -> Iterator[None]:
    """Put this thread, and those of another process, in front of all others while the block runs, if we may.

    A thread of real time waits for no other, and so don't those it makes meanwhile; it must not last, as it starves
    them. Where control groups have shares of real time (CONFIG_RT_GROUP_SCHED) a machine's has none: then a nice
    value helps, which counts among the threads of one group only (sched(7)).
    """
    own, usual = threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)
    for number in (own, *_threads(process)):
        _raise(number)
    try:
        yield
    finally:
        for number in (own, *_threads(process)):
            _lower(number, usual)


def _raise(number: int) -> None:
    try:
        os.sched_setscheduler(number, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        _set(number, _FIRST)


def _lower(number: int, usual: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.sched_setscheduler(number, os.SCHED_OTHER, os.sched_param(0))
    _set(number, usual)


def _threads(process: int) -> list[int]:
    try:
        return [int(each.name) for each in Path(f"/proc/{process}/task").iterdir()]
    except OSError:  # it has ended
        return []


def ordinary(process: int) -> None:
    """Put all threads of a process where this one is."""
    usual = os.getpriority(os.PRIO_PROCESS, os.getpid())
    for number in _threads(process):
        _set(number, usual)


def _set(number: int, priority: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.setpriority(os.PRIO_PROCESS, number, priority)
