"""Backing a machine up: all its disks at one moment, whole or what has changed since the last time, running or not.

QEMU keeps a bitmap of changed blocks in each disk, named after the last point; where it isn't there (a first time, a
machine that was killed, one that went back to a snapshot) the backup is whole. A guest whose agent answers is told to
hold its file systems still for the moment at which the copy begins. One that is off is opened by a QEMU without a
machine (engine/disk/tool.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from trivet.base.clock import now_ns, rfc3339
from trivet.base.error import Conflict, Exhausted, Internal, InvalidArgument, NotFound, TrivetError
from trivet.base.identity import new_id
from trivet.client.schema import Progress
from trivet.engine.disk import tool
from trivet.engine.image.progress import Report
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.machine import filling, point, reading, screen
from trivet.engine.machine.point import Backups, Point
from trivet.engine.snapshot import disk as images
from trivet.hypervisor.qmp import Qmp, QmpRefused
from trivet.isolation import computer
from trivet.isolation.errand import agent_of

_PREFIX = "backup-"
_PATIENCE = 24 * 3600.0
_STEP = 0.1
_END = 30.0
_MARK = "quiet"  # in the run directory, while the guest's file systems are held still


def take(record: InstanceRecord, directory: Path, report: Report, *, full: bool = False) -> Point:
    """Add a point to a directory, made if it isn't there, or nothing. Blocking; the caller holds the lock.

    Raises `Conflict` for a directory with another machine's backups, `Exhausted` when it is full.
    """
    filling.refuse(record, "back up")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = _known(record, directory)
    point.write(directory, found)  # so that one that is killed leaves a directory that is known again
    point.sweep(directory, found)
    disks = computer.hardware(record.plan).disks
    made = new_id()[:12]
    files = {disk.name: directory / f"{made}-{disk.name}.qcow2" for disk in disks}
    try:
        with _opened(record) as qmp:
            before = found.points[-1] if found.points and not full else None
            changed = before is not None and all(_has_bitmap(qmp, disk.name, before.id) for disk in disks)
            for disk in disks:
                images.create(files[disk.name], disk.size)
            since = before.id if before and changed else ""
            quiet = _copy(record, qmp, files, made, since, report)
        taken = Point(
            id=made,
            created=rfc3339(now_ns()),
            full=not since,
            quiet=quiet,
            disks={disk.name: disk.size for disk in disks},
        )
        point.write(directory, msgspec.structs.replace(found, request=record.request, points=(*found.points, taken)))
    except BaseException:
        for file in files.values():
            file.unlink(missing_ok=True)
        raise
    return taken


def _known(record: InstanceRecord, directory: Path) -> Backups:
    try:
        found = point.read(directory)
    except NotFound:
        if any(directory.iterdir()):
            raise InvalidArgument(f"{directory} is neither empty nor a directory of backups") from None
        return Backups(machine=record.id, name=record.name, request=record.request)
    if found.machine != record.id:
        raise Conflict(f"{directory} holds backups of another machine, {found.name}")
    return found


@contextlib.contextmanager
def _opened(record: InstanceRecord) -> Iterator[Qmp]:
    """Reach whoever has the disks open: QEMU, or for a machine that is off one without a machine."""
    if _runs(record):
        with screen.control(record.plan, _PATIENCE) as qmp:
            yield qmp
        return
    with tool.opened(f"open the disks of machine {record.name}") as qemu:
        for disk in computer.hardware(record.plan).disks:
            reading.add(qemu, disk, writable=True)
        yield qemu.qmp


def _copy(record: InstanceRecord, qmp: Qmp, files: dict[str, Path], made: str, since: str, report: Report) -> bool:
    """Copy all disks from one moment on; tell whether the guest held still at its beginning."""
    opened: dict[str, int] = {}
    _clear(qmp)
    try:
        for name, file in files.items():
            opened[name] = _target(qmp, name, file)
        with still(record) as quiet:
            qmp.execute("transaction", actions=[each for name in files for each in _actions(name, made, since)])
        _await(qmp, list(files), record.name, report)
    except BaseException:
        _forget(qmp, files, made)
        raise
    finally:
        for name, number in opened.items():
            with contextlib.suppress(TrivetError):
                qmp.execute("blockdev-del", **{"node-name": f"{name}-target"})
                qmp.execute("remove-fd", **{"fdset-id": number})
    for name in files:
        for old in _bitmaps(qmp, name):
            if old.startswith(_PREFIX) and old != f"{_PREFIX}{made}":
                qmp.execute("block-dirty-bitmap-remove", node=name, name=old)
    return quiet


def _clear(qmp: Qmp) -> None:
    """End what an engine that was killed has begun."""
    deadline = time.monotonic() + _END
    while jobs := [job for job in qmp.execute("query-jobs") if str(job["id"]).startswith(_PREFIX)]:
        for job in jobs:
            with contextlib.suppress(QmpRefused):
                qmp.execute("job-dismiss" if job["status"] == "concluded" else "job-cancel", id=job["id"])
        if time.monotonic() > deadline:
            raise Conflict("an earlier backup is still being ended")
        time.sleep(_STEP)
    for node in qmp.execute("query-named-block-nodes", flat=True):
        if str(node["node-name"]).endswith("-target"):
            with contextlib.suppress(QmpRefused):
                qmp.execute("blockdev-del", **{"node-name": node["node-name"]})


def _target(qmp: Qmp, name: str, file: Path) -> int:
    """Open a target. QEMU gets the file, as it may have no right to come where it is; its number there."""
    number = qmp.add_file(file, writable=True)
    backend = {"driver": "file", "filename": f"/dev/fdset/{number}"}
    qmp.execute("blockdev-add", **{"driver": "qcow2", "node-name": f"{name}-target", "file": backend, "backing": None})
    return number


def _runs(record: InstanceRecord) -> bool:
    return record.word in (Word.RUNNING, Word.PAUSED)


def _actions(name: str, made: str, since: str) -> list[dict[str, Any]]:
    bitmap = {"node": name, "name": f"{_PREFIX}{made}", "persistent": True}
    copy: dict[str, Any] = {
        "device": name,
        "target": f"{name}-target",
        "job-id": f"{_PREFIX}{name}",
        "sync": "bitmap" if since else "full",
        "auto-dismiss": False,
    }
    copy |= {"bitmap": f"{_PREFIX}{since}", "bitmap-mode": "never"} if since else {}
    return [{"type": "block-dirty-bitmap-add", "data": bitmap}, {"type": "blockdev-backup", "data": copy}]


def _await(qmp: Qmp, names: list[str], machine: str, report: Report) -> None:
    waiting = {f"{_PREFIX}{name}": name for name in names}
    failure = ""
    while waiting:
        for job in qmp.execute("query-jobs"):
            name = waiting.get(job["id"])
            if name is None:
                continue
            report(Progress(id=name, status="copying", current=job["current-progress"], total=job["total-progress"]))
            if job["status"] == "concluded":
                failure = failure or str(job.get("error", ""))
                qmp.execute("job-dismiss", id=job["id"])
                del waiting[job["id"]]
        time.sleep(_STEP)
    if failure:
        kind = Exhausted if "space" in failure else Internal
        raise kind(f"cannot back machine {machine} up: {failure}")


def _forget(qmp: Qmp, names: dict[str, Path], made: str) -> None:
    for name in names:
        with contextlib.suppress(TrivetError):
            qmp.execute("block-dirty-bitmap-remove", node=name, name=f"{_PREFIX}{made}")


@contextlib.contextmanager
def still(record: InstanceRecord) -> Iterator[bool]:
    """Have the guest's agent hold the file systems still while the block runs; yields whether it does."""
    agent = agent_of(record.plan, 10.0) if record.word is Word.RUNNING else None
    frozen = False
    if agent is not None and agent.answers():
        Path(record.plan.directory, _MARK).touch()
        with contextlib.suppress(TrivetError):
            frozen = int(agent.ask("guest-fsfreeze-freeze")) > 0
    try:
        yield frozen or record.word is not Word.RUNNING
    finally:
        if frozen:
            _thaw(record)
        Path(record.plan.directory, _MARK).unlink(missing_ok=True)


def go_on(records: Iterable[InstanceRecord]) -> None:
    """Let guests' file systems go on that an engine which was killed had held still."""
    for record in records:
        mark = Path(record.plan.directory, _MARK)
        if record.plan.hardware and mark.exists():
            with contextlib.suppress(TrivetError):
                _thaw(record)
                mark.unlink(missing_ok=True)


def _thaw(record: InstanceRecord) -> None:
    agent_of(record.plan, 30.0).ask("guest-fsfreeze-thaw")


def _has_bitmap(qmp: Qmp, node: str, since: str) -> bool:
    return f"{_PREFIX}{since}" in _bitmaps(qmp, node)


def _bitmaps(qmp: Qmp, node: str) -> list[str]:
    """List a disk's bitmaps that can be trusted; others go."""
    found = []
    for each in qmp.execute("query-named-block-nodes", flat=True):
        for bitmap in each.get("dirty-bitmaps", []) if each["node-name"] == node else []:
            if bitmap.get("inconsistent"):
                with contextlib.suppress(QmpRefused):
                    qmp.execute("block-dirty-bitmap-remove", node=node, name=bitmap["name"])
            else:
                found.append(str(bitmap["name"]))
    return found
