"""Volumes: data that outlives the instance.

    ROOT/               0701: nobody finds out which volumes there are
    └── NAME/           0701
        ├── data/       what instances are shown, with owner and mode of the image's directory (or storage.py's place)
        ├── filling/    what is to become data/
        └── old/        what was, until its successor has its place

Who uses a volume is the instances' fact: callers that may remove one pass `users` along.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from trivet.base.error import AlreadyExists
from trivet.client.schema import Removed
from trivet.client.schema_volume import Volume, VolumeRequest
from trivet.engine.volume import storage
from trivet.engine.volume.model import (
    DRIVER,
    InvalidVolume,
    NoSuchVolume,
    UnsupportedVolume,
    VolumeBusy,
    VolumeDiffers,
    VolumeInUse,
    VolumeKept,
    VolumeRecord,
)
from trivet.engine.volume.populate import populate
from trivet.store.record import Records

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_TRASH = ".trash-"  # no volume's name begins with a dot
_FILLING = "filling"

Shown = list[Volume]  # inside the class `list` is the method


class Volumes:
    """The volumes of one engine. Methods may be called from any thread. `kept` names a volume's snapshots."""

    def __init__(self, records: Records, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._table = records.table("volume", VolumeRecord)
        self._closed: set[str] = set()
        self.kept: Callable[[str], Sequence[str]] = lambda name: ()
        root.mkdir(mode=0o701, parents=True, exist_ok=True)
        root.chmod(0o701)
        self._sweep()

    def create(self, request: VolumeRequest) -> VolumeRecord:
        """Create a volume; one that exists with the same options is returned as it is.

        Raises `InvalidVolume`, `UnsupportedVolume`, `VolumeDiffers`.
        """
        name = request.name or secrets.token_hex(32)
        _validate(name, request)
        wish = storage.read(name, request.options)
        with self._lock:
            known = self.get(name)
            if known:
                if _without_size(known.options) != _without_size(request.options) or wish.size > known.size:
                    raise VolumeDiffers(name)
                return known
            fresh = not (self._root / name).exists()
            try:
                storage.make(self._root, name, wish)
            except BaseException:
                if fresh:
                    self._discard(name)
                raise
            record = VolumeRecord(
                name=name,
                mountpoint=str(storage.place(self._root, name, wish)),
                size=wish.size,
                created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                anonymous=not request.name,
                labels=request.labels,
                options=request.options,
            )
            self._table.insert(name, record, name=name)
            return record

    def get(self, name: str) -> VolumeRecord | None:
        """Read a volume's record; None when there is none."""
        return self._table.get(name)

    def find(self, name: str) -> VolumeRecord:
        """Read a volume's record. Raises `NoSuchVolume`."""
        record = self.get(name)
        if not record:
            raise NoSuchVolume(name)
        return record

    def show(self, name: str, users: Mapping[str, Sequence[str]], size: bool = False) -> Volume:
        """Describe a volume. Raises `NoSuchVolume`."""
        return self._show(self.find(name), users, size)

    def list(self, users: Mapping[str, Sequence[str]], size: bool = False) -> Shown:
        """Describe all volumes, oldest first."""
        return [self._show(record, users, size) for record in self._table.all()]

    def ready(self, name: str) -> None:
        """Mount what a volume is kept in, unless it is. Raises `Unavailable`, `Unsupported`."""
        record = self.find(name)
        with self._lock:
            storage.show(self._root, name, storage.wish_of(record))

    def hide_all(self) -> None:
        """Unmount everything; it is mounted again when an instance needs it."""
        for record in self._table.all():
            storage.hide(self._root, record.name)

    def resize(self, name: str, text: str) -> VolumeRecord:
        """Let a volume that was made with a size hold more. Raises `InvalidVolume`, `Conflict`."""
        with self._lock:
            record, size = self.find(name), storage.bytes_of(name, text)
            if not record.size:
                raise InvalidVolume(name, "has no size of its own, as it was made without one")
            if size < record.size:
                raise InvalidVolume(name, f"cannot shrink from {record.size} to {size} bytes")
            try:
                storage.resize(self._root, name, size)
            finally:
                self.ready(name)
            options = {key: value for key, value in record.options.items() if key != "size"}
            grown = msgspec.structs.replace(record, size=size, options={**options, "size": str(size)})
            self._table.update(name, grown)
            return grown

    def is_empty(self, record: VolumeRecord) -> bool:
        """Tell whether a volume has no content yet."""
        with os.scandir(record.mountpoint) as entries:
            return next(entries, None) is None

    def fill(self, name: str, source: Path) -> None:
        """Give an empty volume the content, owner and mode of an image's directory, all of it or nothing."""
        with self._lock:
            record = self.find(name)
            if record.foreign or not self.is_empty(record):
                return
            filling = Path(record.mountpoint).parent / _FILLING
            shutil.rmtree(filling, ignore_errors=True)
            filling.mkdir(mode=0o700)
            try:
                populate(source, filling)
                storage.own(filling, storage.wish_of(record))
                filling.rename(record.mountpoint)
            except BaseException:
                shutil.rmtree(filling, ignore_errors=True)
                raise

    def check_free(self, name: str) -> None:
        """Raise `InvalidVolume` or `AlreadyExists` unless a volume could be made under this name."""
        _validate(name, VolumeRequest(name=name))
        if self.get(name) or (self._root / name).exists():
            raise AlreadyExists(f"volume {name} exists", hint=f"trivet volume inspect {name}")

    @contextmanager
    def closed(self, name: str) -> Iterator[None]:
        """Let no new instance have the volume while the block runs. Raises `VolumeBusy`."""
        with self._lock:
            self.check_open(name)
            self._closed.add(name)
        try:
            yield
        finally:
            self._closed.discard(name)

    def check_open(self, name: str) -> None:
        """Raise `VolumeBusy` while the volume is `closed`."""
        if name in self._closed:
            raise VolumeBusy(name)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Give an empty directory that takes the place of the volume's content when the block ends, or never.

        The caller sees to it that nobody uses the volume. Raises `InvalidVolume` for a directory of the host.
        """
        record = self.find(name)
        if record.foreign:
            raise InvalidVolume(name, "is a directory of the host, which is not replaced")
        self.ready(name)
        filling, old, data = (Path(record.mountpoint).parent / part for part in (_FILLING, storage.OLD, storage.DATA))
        shutil.rmtree(filling, ignore_errors=True)
        filling.mkdir(mode=0o700)
        try:
            yield filling
            data.rename(old)
            filling.rename(data)
        except BaseException:
            shutil.rmtree(filling, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def rename(self, name: str, new: str) -> VolumeRecord:
        """Give a volume nobody has open another name, in the caller's transaction; `settle` it after that.

        Raises `InvalidVolume`, `AlreadyExists`.
        """
        with self._lock:
            record = self.find(name)
            self.check_free(new)
            place = str(storage.place(self._root, new, storage.wish_of(record)))
            renamed = msgspec.structs.replace(record, name=new, mountpoint=place, anonymous=False, formerly=name)
            self._table.delete(name)
            self._table.insert(new, renamed, name=new)
            return renamed

    def settle(self, record: VolumeRecord) -> None:
        """Give the directory of a renamed volume its name, unless that has been done."""
        place, before = self._root / record.name, self._root / record.formerly
        if record.formerly and not place.exists() and before.exists():
            storage.hide(self._root, record.formerly)
            before.rename(place)

    def remove(self, name: str, users: Mapping[str, Sequence[str]] | None = None, force: bool = False) -> None:
        """Remove a volume and its data; with `force` a missing one is fine. Raises `VolumeInUse`, `NoSuchVolume`."""
        with self._lock:
            record = self.get(name)
            if not record:
                if force:
                    return
                raise NoSuchVolume(name)
            using = (users or {}).get(name)
            if using:
                raise VolumeInUse(name, using)
            if kept := self.kept(name):
                raise VolumeKept(name, kept)
            self._table.delete(name)
            self._discard(name)

    def prune(self, used: Collection[str], *, every: bool = False, dry_run: bool = False) -> Removed:
        """Remove anonymous volumes nobody uses, with `every` also named ones; tells the names and the bytes."""
        deleted, freed = [], 0
        for record in self._table.all():
            if record.name in used or not (record.anonymous or every) or self.kept(record.name):
                continue
            deleted.append(f"volume {record.name}")
            freed += self._size(record)
            if not dry_run:
                self.remove(record.name, force=True)
        return Removed(deleted=deleted, freed=freed)

    def _show(self, record: VolumeRecord, users: Mapping[str, Sequence[str]], size: bool) -> Volume:
        return record.show(users.get(record.name, ()), self._size(record) if size else -1)

    def _size(self, record: VolumeRecord) -> int:
        if record.size:
            return storage.used(self._root, record.name)
        return 0 if record.foreign else disk_usage(Path(record.mountpoint))

    def _discard(self, name: str) -> None:
        """Delete what a volume was kept in; what is mounted isn't the volume's to delete."""
        storage.hide(self._root, name)
        if any(os.path.ismount(self._root / name / part) for part in (storage.DRIVE, storage.DATA)):
            return  # nobody may follow it in
        if trash := self._trash(name):
            shutil.rmtree(trash, ignore_errors=True)

    def _trash(self, name: str) -> Path | None:
        """Move a volume's directory out of sight in one step."""
        trash = self._root / f"{_TRASH}{secrets.token_hex(8)}"
        try:
            (self._root / name).rename(trash)
        except FileNotFoundError:
            return None
        return trash

    def _sweep(self) -> None:
        """Delete the trash a crash left. A directory without a record is data: it stays, and `create` finds it."""
        for path in self._root.glob(f"{_TRASH}*"):
            shutil.rmtree(path, ignore_errors=True)
        for old in [*self._root.glob(f"*/{storage.OLD}"), *self._root.glob(f"*/{storage.DRIVE}/{storage.OLD}")]:
            storage.settle(old.parent)
        for record in self._table.all():  # killed while a volume was renamed
            self.settle(record)


def disk_usage(directory: Path) -> int:
    """Add up the blocks below a directory, every file once however many names it has; never follows a link."""
    total, seen = 0, set()
    for _, folders, files, descriptor in os.fwalk(directory):
        for name in (*folders, *files):
            try:
                info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if info.st_nlink == 1 or (info.st_dev, info.st_ino) not in seen:
                total += info.st_blocks * 512
            if info.st_nlink > 1:
                seen.add((info.st_dev, info.st_ino))
    return total


def _without_size(options: Mapping[str, str]) -> dict[str, str]:
    """A volume that was made larger since is still the one that was asked for."""
    return {key: value for key, value in options.items() if key != "size"}


def _validate(name: str, request: VolumeRequest) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidVolume(name, "has an invalid name: letters, digits, '_', '.', '-' are possible")
    if request.driver != DRIVER:
        raise UnsupportedVolume(name, f"there is no driver {request.driver}")
