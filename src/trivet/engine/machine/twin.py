"""Copies of a running machine: its disks of one moment, its guest's file systems held still where that can be.

Those that go on with its memory are told who they are (isolation/arrival.py). One that an engine which was killed had
not told yet stands still, and is switched off: it has the disks, and can be started like any other.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trivet.base.error import TrivetError
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.instance.still import recorded_still
from trivet.engine.machine import backup, screen
from trivet.isolation import arrival, moment
from trivet.store.content import explaining_full


def copy(context: Context, record: InstanceRecord, place: Path) -> float:
    """Copy disks, and what firmware and TPM remember, into a new directory; seconds the machine stood still."""
    place.parent.mkdir(mode=0o700, exist_ok=True)
    place.mkdir(mode=0o700)
    with (
        explaining_full(place),
        backup.still(record),
        recorded_still(context, record),
        screen.control(record.plan, moment.PATIENCE) as qmp,
    ):
        return moment.copy(record.plan, qmp, place)


def give_up(context: Context) -> None:
    """Switch those off that nobody will tell any more who they are. Blocking."""
    for record in _arriving(context.table.all()):
        with suppress(TrivetError):
            context.driver(record).signal(record.plan, signal.SIGKILL)


def _arriving(records: Iterable[InstanceRecord]) -> Iterable[InstanceRecord]:
    return (each for each in records if each.word is Word.RUNNING and Path(each.plan.directory, arrival.MARK).exists())
