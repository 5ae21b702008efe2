"""What a directory of backups holds: one machine at several moments, each with what has changed since the one before.

    DIRECTORY/
    ├── backup.json           the machine, and its points, oldest first
    └── ID-DISK.qcow2         a disk at a point: whole, or the blocks that changed since the point before

The directory may have been elsewhere meanwhile: names are looked at before files are opened, formats are said, and
what is below a file is what backup.json says, never what the file's header does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from trivet.base.error import Corrupt, InvalidArgument, NotFound
from trivet.client.schema import InstanceRequest
from trivet.client.schema_machine import BackupPoint

MANIFEST = "backup.json"
_LIMIT = 16 << 20
_LEFT = re.compile(r"[0-9a-f]{12}-[a-z0-9-]+\.qcow2")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One moment: sizes of disks by name; `full` stands for itself, others for what changed since the point before."""

    id: str
    created: str
    full: bool
    quiet: bool
    disks: dict[str, int]


class Backups(msgspec.Struct, frozen=True, kw_only=True):
    """The content of backup.json: the machine's id and name, and what was asked for when it was made."""

    machine: str
    name: str
    request: InstanceRequest
    points: tuple[Point, ...] = ()


def directory_of(text: str) -> Path:
    """Read a directory of the engine's host. Raises `InvalidArgument`."""
    path = Path(text)
    if not path.is_absolute():
        raise InvalidArgument(f"{text} is no absolute path of a directory")
    return path


def read(directory: Path) -> Backups:
    """Read what a directory holds. Raises `NotFound`, `Corrupt`."""
    try:
        with (directory / MANIFEST).open("rb") as file:
            found = msgspec.json.decode(file.read(_LIMIT), type=Backups)
    except FileNotFoundError:
        raise NotFound(f"{directory} holds no backups of a machine") from None
    except (msgspec.DecodeError, OSError) as error:
        raise Corrupt(f"{directory / MANIFEST} cannot be read: {error}") from error
    for point in found.points:
        for name in (point.id, *point.disks):
            if not _NAME.fullmatch(name):
                raise Corrupt(f"{directory / MANIFEST} names a file {name[:40]!r}, which cannot be")
    if found.points and not found.points[0].full:
        raise Corrupt(f"{directory / MANIFEST} begins with changes, and not with a whole machine")
    return found


def write(directory: Path, found: Backups) -> None:
    """Write it, all or nothing."""
    partial = directory / f".{MANIFEST}.partial"
    with partial.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(found)))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(directory / MANIFEST)


def sweep(directory: Path, found: Backups) -> None:
    """Remove what a backup that was killed has left."""
    known = {file_of(directory, point, disk).name for point in found.points for disk in point.disks}
    for file in directory.glob("*.qcow2"):
        if _LEFT.fullmatch(file.name) and file.name not in known:
            file.unlink(missing_ok=True)


def find(found: Backups, name: str, directory: Path) -> int:
    """Find a point by its id or number, "" is the newest; its place. Raises `NotFound`."""
    for place, point in enumerate(found.points):
        if name in (point.id, str(place + 1)):
            return place
    if name or not found.points:
        raise NotFound(f"{directory} holds no backup {name}".rstrip(), hint=f"trivet vm backup ls {directory}")
    return len(found.points) - 1


def file_of(directory: Path, point: Point, disk: str) -> Path:
    """Tell where a disk of a point is."""
    return directory / f"{point.id}-{disk}.qcow2"


def chain(directory: Path, found: Backups, place: int, disk: str, hand: Callable[[Path], int]) -> dict[str, Any]:
    """Describe a disk at a point as QEMU's block graph: its file over those of earlier points, down to a whole one.

    `hand` opens a file for QEMU, as /dev/fdset/NUMBER.
    """
    node: dict[str, Any] | None = None
    for file in reversed(files(directory, found, place, disk)):
        node = {
            "driver": "qcow2",
            "read-only": True,
            "file": {"driver": "file", "filename": f"/dev/fdset/{hand(file)}", "read-only": True},
            "backing": node,
        }
    assert node is not None
    return node


def files(directory: Path, found: Backups, place: int, disk: str) -> list[Path]:
    """List the files that a disk is made of at a point, the newest first. Raises `Corrupt`."""
    chosen = [file_of(directory, point, disk) for point in reversed(_needed(found, place, disk))]
    for file in chosen:
        if file.is_symlink() or not file.is_file():
            raise Corrupt(f"backup file {file} is not there")
    if not chosen:
        raise Corrupt(f"{directory} has no disk {disk} at that point")
    return chosen


def view(directory: Path, found: Backups) -> list[BackupPoint]:
    """Show the points as the API does."""
    return [
        BackupPoint(
            number=place + 1,
            id=point.id,
            machine=found.name,
            created=point.created,
            full=point.full,
            quiet=point.quiet,
            size=sum(_used(file_of(directory, point, disk)) for disk in point.disks),
        )
        for place, point in enumerate(found.points)
    ]


def _needed(found: Backups, place: int, disk: str) -> list[Point]:
    """List the points that a disk is made of, the whole one first."""
    chosen: list[Point] = []
    for point in reversed(found.points[: place + 1]):
        if disk not in point.disks:
            break
        chosen.insert(0, point)
        if point.full:
            break
    return chosen


def _used(file: Path) -> int:
    try:
        return file.stat().st_blocks * 512
    except OSError:
        return 0
