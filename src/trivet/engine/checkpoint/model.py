"""What the engine remembers about a moment of an instance.

STATE/checkpoint/ID/
├── drive, or upper     what the instance had written: a file, or at the other levels a directory
└── memory, state, ...  of one that ran (isolation/saving.py)
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from trivet.base.clock import rfc3339
from trivet.base.error import NotFound
from trivet.client.schema import InstanceRequest
from trivet.client.schema_checkpoint import Checkpoint
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.isolation.plan import Plan
from trivet.store.record import Table

KIND = "checkpoint"


class CheckpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot: of which instance, what was asked for and planned then, what it was taken after. Time in ns."""

    id: str
    name: str
    instance: str
    request: InstanceRequest
    plan: Plan
    created: int
    parent: str = ""
    memory: bool = False
    pause: float = 0.0
    size: int = 0


class NoSuchCheckpoint(NotFound):
    """A name that no snapshot of the instance has."""

    def __init__(self, instance: str, name: str) -> None:
        what = f"no snapshot {name}" if name else "no snapshot"
        super().__init__(f"instance {instance} has {what}", hint=f"trivet snapshot ls {instance}")


def table(context: Context) -> Table[CheckpointRecord]:
    """Open the records."""
    return context.records.table(KIND, CheckpointRecord)


def of_instance(context: Context, key: str) -> list[CheckpointRecord]:
    """List an instance's snapshots, oldest first."""
    return table(context).below(f"{key}/")


def find(context: Context, record: InstanceRecord, name: str) -> CheckpointRecord:
    """Find a snapshot by its name; "" is the newest. Raises `NoSuchCheckpoint`."""
    found = [each for each in of_instance(context, record.id) if name in ("", each.name)]
    if not found:
        raise NoSuchCheckpoint(record.name, name)
    return max(found, key=lambda each: each.created)


def home(context: Context, key: str) -> Path:
    """Tell where an instance's snapshots are."""
    return context.place(key).state / "checkpoint"


def view(record: CheckpointRecord, instance: InstanceRecord) -> Checkpoint:
    """Show a record as the API does."""
    return Checkpoint(
        instance=instance.name,
        name=record.name,
        created=rfc3339(record.created),
        parent=record.parent,
        memory=record.memory,
        pause=record.pause,
        size=record.size,
        current=record.name == instance.checkpoint,
    )
