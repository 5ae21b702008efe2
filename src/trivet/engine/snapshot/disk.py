"""Disks of machines with an operating system of their own: a thin qcow2 image each, over an image's base (engine/disk).

    DIRECTORY/
    ├── instance/<id>/disk/     root.qcow2, further disks, what firmware and TPM remember
    └── making/<random>         being made or deleted

How they are made: engine/disk/tool.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Literal

from trivet.base.error import AlreadyExists, Unsupported
from trivet.engine.disk import tool
from trivet.engine.snapshot.making import Making, disk_usage
from trivet.engine.snapshot.snapshotter import Layered, Report, SnapshotNotFound, silent
from trivet.isolation.plan import Root
from trivet.store.content import explaining_full

UPPER, ROOT = "disk", "root.qcow2"


class NeedsDisk(Unsupported):
    """An image of layers where a disk is wanted."""

    def __init__(self) -> None:
        super().__init__("an image of layers is no disk of a machine", hint="trivet run --isolation vm IMAGE")


class DiskSnapshotter:
    """The snapshotter of form `disk`; what it makes is not from layers."""

    form: Literal["mount", "drive", "disk"] = "disk"

    def __init__(self, directory: Path) -> None:
        self._instances = directory / "instance"
        self.making = Making(directory / "making")
        self._instances.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.making.leftovers():  # of an engine that was killed
            self.making.discard(path)

    def make(self, instance: str, base: Path | None, size: int, furnish: Callable[[Path], None]) -> Root:
        """Make an instance's root disk of `size` bytes over a raw base, or an empty one; `furnish` adds to them."""
        home = self.home(instance)
        if home.exists():
            raise AlreadyExists(f"instance {instance} already has a disk")
        with explaining_full(home), self.making.draft() as draft:
            upper = draft / UPPER
            upper.mkdir(mode=0o700)
            create(upper / ROOT, size, base)
            furnish(upper)
            draft.rename(home)
        return Root(form=self.form, lowers=(str(base),) if base else (), upper=str(home / UPPER))

    def home(self, instance: str) -> Path:
        """Tell where an instance's disks are."""
        return self._instances / instance

    def prepare(self, image: Layered, report: Report = silent) -> None:
        """Raise `NeedsDisk`."""
        raise NeedsDisk

    def create(self, instance: str, image: Layered, size: int = 0) -> Root:
        """Raise `NeedsDisk`."""
        raise NeedsDisk

    def root(self, instance: str, image: Layered) -> Root:
        """Raise `NeedsDisk`."""
        raise NeedsDisk

    def usage(self, instance: str) -> int:
        """Measure what an instance's disks take."""
        home = self.home(instance)
        if not home.is_dir():
            raise SnapshotNotFound(instance)
        return disk_usage(home)

    def remove(self, instance: str) -> None:
        """Delete an instance's disks."""
        self.making.discard(self.home(instance))

    def instances(self) -> set[str]:
        """List the instances that have disks."""
        return {path.name for path in self._instances.iterdir()}

    def sweep(self) -> None:
        """Delete what a crash left half-made or half-deleted; at start-up."""
        self.making.sweep()

    def prune(self, keep: Iterable[Layered], *, dry_run: bool = False, without: Collection[str] = ()) -> int:
        """Delete what a crash left."""
        useless = self.making.leftovers()
        freed = sum(disk_usage(path) for path in useless)
        for path in useless if not dry_run else ():
            self.making.discard(path)
        return freed


def create(target: Path, size: int, base: Path | None = None) -> None:
    """Make an empty qcow2 image, perhaps over a raw base, which isn't opened. Raises `DiskFailed`, `Unsupported`."""
    with tool.opened("make a disk") as qemu:
        target.touch(0o600)
        qemu.format(target, size, base)
