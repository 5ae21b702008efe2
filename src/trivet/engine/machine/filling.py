"""Machines that run before they are restored: their disks are filled from the backup while they do.

Such a disk lies over the backup's files until QEMU has copied all that is in them (block-stream); the record says so,
and every start, also after a power cut, opens it that way. Until then the backup is needed, and what would have to be
told of it (snapshots, clones, backups) is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from trivet.base.error import Conflict, TrivetError
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.machine import screen
from trivet.hypervisor.qmp import Qmp
from trivet.isolation import computer
from trivet.isolation.hardware import Disk

_PAUSE = 1.0
_PREFIX = "fill-"

log = logging.getLogger(__name__)


class StillFilling(Conflict):
    """A machine that can't be saved yet."""

    def __init__(self, record: InstanceRecord, verb: str) -> None:
        super().__init__(
            f"cannot {verb} machine {record.name}: it is still being restored from its backup",
            hint=f"it goes on while it runs; trivet vm disk ls {record.name} shows when it is done",
        )


def refuse(record: InstanceRecord, verb: str) -> None:
    """Refuse what a half-restored machine can't have. Raises `StillFilling`."""
    if _open(record):
        raise StillFilling(record, verb)


class Filling:
    """The machines of one engine whose disks are being filled. Belongs to the event loop's thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keys: set[str] = set()
        self._work: asyncio.Task[None] | None = None

    def add(self, key: str) -> None:
        """Fill a machine's disks whenever it runs."""
        self._keys.add(key)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run())
            self._context.background(self._work)

    def go_on(self, records: Iterable[InstanceRecord]) -> None:
        """Go on with what an earlier engine has begun."""
        for record in records:
            if _open(record):
                self.add(record.id)

    async def _run(self) -> None:
        while self._keys:
            for key in list(self._keys):
                record = self._context.table.get(key)
                if record is None or not _open(record):
                    self._keys.discard(key)
                elif record.word is Word.RUNNING:
                    await self._step(record)
            await asyncio.sleep(_PAUSE)

    async def _step(self, record: InstanceRecord) -> None:
        try:
            full = await asyncio.to_thread(_look, record)
        except (TrivetError, OSError) as error:  # it is ending, or its disk is full: it still has the backup below
            log.warning("machine %s is not restored further: %s", record.name, error)
            return
        if full:
            async with self._context.locks.hold(record.id, "restoring"):
                found = self._context.table.get(record.id)
                if found is not None:
                    self._context.table.update(record.id, _without(found, full))


def _open(record: InstanceRecord) -> list[Disk]:
    return [disk for disk in record.plan.hardware.disks if disk.kept] if record.plan.hardware else []


def _look(record: InstanceRecord) -> list[str]:
    """Have QEMU copy what isn't copied yet; the names of disks that have all."""
    full = []
    with screen.control(record.plan) as qmp:
        jobs = {str(job["id"]): job for job in qmp.execute("query-jobs")}
        for disk in _open(record):
            job = jobs.get(_PREFIX + disk.name)
            if job is None:
                _begin(qmp, disk)
            elif job["status"] == "concluded":
                qmp.execute("job-dismiss", id=_PREFIX + disk.name)
                if job.get("error"):
                    raise Conflict(f"disk {disk.name}: {job['error']}")
                full.append(disk.name)
    return full


def _begin(qmp: Qmp, disk: Disk) -> None:
    node = str(computer.disk(disk).node()["node-name"])
    qmp.execute("block-stream", device=node, **{"job-id": _PREFIX + disk.name, "auto-dismiss": False})


def _without(record: InstanceRecord, full: list[str]) -> InstanceRecord:
    """Let go of the backup, in the plan and in what a clone would ask for."""
    parts, machine = computer.hardware(record.plan), record.request.machine
    assert machine is not None
    disks = tuple(msgspec.structs.replace(disk, kept=()) if disk.name in full else disk for disk in parts.disks)
    kept = {disk: files for disk, files in machine.kept.items() if disk not in full}
    request = msgspec.structs.replace(record.request, machine=msgspec.structs.replace(machine, kept=kept))
    plan = msgspec.structs.replace(record.plan, hardware=msgspec.structs.replace(parts, disks=disks))
    return record.change(request=request, plan=plan)
