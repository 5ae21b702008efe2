"""Disks of machines with an operating system of their own: a thin qcow2 image each, over an image's base (engine/disk).

    DIRECTORY/
    ├── instance/<id>/disk/     root.qcow2, further disks, what firmware and TPM remember
    └── making/<random>         being made or deleted

QEMU's tools are told every format and what is below: they read no header that a guest could have written.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from trivet.base.error import AlreadyExists, Internal, Unsupported
from trivet.engine.snapshot.making import Making, disk_usage
from trivet.engine.snapshot.snapshotter import Layered, Report, SnapshotNotFound, silent
from trivet.isolation.plan import Root
from trivet.store.content import explaining_full

TOOL = "qemu-img"
UPPER, ROOT = "disk", "root.qcow2"


class DiskFailed(Internal):
    """A disk that QEMU's tool could not make or read."""

    def __init__(self, what: str, output: bytes) -> None:
        said = output.decode(errors="replace").strip().splitlines() or [f"{TOOL} said nothing"]
        super().__init__(f"cannot {what}: {said[-1].removeprefix(f'{TOOL}: ')}")


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

    def prune(self, keep: Iterable[Layered], *, dry_run: bool = False) -> int:
        """Delete what a crash left."""
        useless = self.making.leftovers()
        freed = sum(disk_usage(path) for path in useless)
        for path in useless if not dry_run else ():
            self.making.discard(path)
        return freed


def create(target: Path, size: int, base: Path | None = None) -> None:
    """Make an empty qcow2 image, perhaps over a raw base, which isn't opened."""
    below = ["-u", "-F", "raw", "-b", os.fspath(base)] if base else []
    run("make a disk", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", *below, str(target), str(size))
    target.chmod(0o600)


def run(what: str, *words: str) -> bytes:
    """Run QEMU's tool on an image. Raises `DiskFailed`, `Unsupported` when it isn't installed."""
    try:
        done = subprocess.run([TOOL, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError:
        raise Unsupported(f"cannot {what}: {TOOL} is not installed", hint="apt-get install qemu-utils") from None
    if done.returncode:
        raise DiskFailed(what, done.stderr)
    return done.stdout
