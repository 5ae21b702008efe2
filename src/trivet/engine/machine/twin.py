"""A running machine's disks of one moment, for copies of it; its guest holds its file systems still where it can."""

from __future__ import annotations

from pathlib import Path

from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.still import recorded_still
from trivet.engine.machine import backup, screen
from trivet.isolation import moment
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
