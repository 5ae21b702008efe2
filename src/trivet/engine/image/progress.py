"""Progress of something that takes longer than a second, as the API streams it."""

from __future__ import annotations

import time
from collections.abc import Callable

from trivet.client.schema import Progress

Report = Callable[[Progress], None]
"""Takes one line of progress; may be called from any thread."""

INTERVAL = 0.1
PATIENCE = 1.0


def silent(progress: Progress) -> None:
    """Report nothing."""


def late(report: Report) -> Report:
    """Report only from a second on: what is done sooner needs no explanation."""
    begin = time.monotonic() + PATIENCE

    def tell(progress: Progress) -> None:
        if time.monotonic() >= begin:
            report(progress)

    return tell


class Meter:
    """Turns frequent counts of one part into lines a person can read: at most ten a second, and the last one."""

    def __init__(self, report: Report, key: str, total: int) -> None:
        self._report = report
        self._key = key
        self._total = total
        self._next = 0.0

    def count(self, status: str, current: int) -> None:
        """Tell how far the part is."""
        now = time.monotonic()
        if now >= self._next or current == self._total:
            self._next = now + INTERVAL
            self._report(Progress(id=self._key, status=status, current=current, total=self._total))


def relay(report: Report) -> Callable[[str, str, int, int], None]:
    """Make a snapshotter's reports lines of progress."""
    meters: dict[str, Meter] = {}

    def count(what: str, doing: str, done: int, total: int) -> None:
        meters.setdefault(what, Meter(report, what, total)).count(doing, done)

    return count
