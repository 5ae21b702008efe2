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
    """Put this thread, and those of another process, in front of others while the block runs, if we may."""
    with contextlib.ExitStack() as undo:
        threads = [int(each.name) for each in Path(f"/proc/{process}/task").iterdir()]
        for number in (threading.get_native_id(), *threads):
            with contextlib.suppress(OSError):
                before = os.getpriority(os.PRIO_PROCESS, number)
                os.setpriority(os.PRIO_PROCESS, number, _FIRST)
                undo.callback(_set, number, before)
        yield


def ordinary(process: int) -> None:
    """Put all threads of a process where this one is."""
    usual = os.getpriority(os.PRIO_PROCESS, os.getpid())
    for each in Path(f"/proc/{process}/task").iterdir():
        _set(int(each.name), usual)


def _set(number: int, priority: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.setpriority(os.PRIO_PROCESS, number, priority)
