"""Disk images as files for machines: one immutable raw file per image, and thin disks over it.

    ROOT/disk/
    ├── base/<digits>.raw    the whole disk, sparse, read-only; made when the first machine wants it
    └── making/              being made; rubbish otherwise

A base stays while its image has users or somebody holds it; else it may go, since it can be made again.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.base.error import InvalidArgument
from trivet.client.schema_host import Usage
from trivet.engine.disk import index
from trivet.engine.disk.index import Count
from trivet.engine.disk.model import SECTOR, Disk
from trivet.engine.snapshot.disk import create
from trivet.engine.snapshot.making import Making, disk_usage
from trivet.oci import manifest as manifests
from trivet.oci.manifest import Manifest
from trivet.store.content import ContentStore, explaining_full


class DiskTooSmall(InvalidArgument):
    """A machine's disk that would have to cut off its image."""

    def __init__(self, subject: str, wanted: int, needed: int) -> None:
        super().__init__(f"a disk of {wanted} bytes is too small for image {subject}, which has {needed}")


class Bases:
    """The bases of one engine. Methods block and may be called from any thread."""

    def __init__(self, root: Path, content: ContentStore) -> None:
        self._content = content
        self._bases = root / "base"
        self._making = Making(root / "making")
        self._lock = threading.Lock()
        self._work: dict[str, threading.Lock] = {}
        self._held: Counter[str] = Counter()
        self._bases.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._making.leftovers():
            self._making.discard(path)

    @contextmanager
    def using(self, key: str, manifest: str, subject: str, count: Count = lambda size: None) -> Iterator[Path]:
        """Hold an image's base while the block runs, made if it isn't there: `key` is the image's id.

        Who needs it for longer must be among the image's users when the block ends. The file must not be changed.
        """
        with self._lock:
            self._held[key] += 1
            work = self._work.setdefault(key, threading.Lock())
        try:
            with work:
                path = self._path(key)
                if not path.exists():
                    self._make(path, manifest, subject, count)
            yield path
        finally:
            with self._lock:
                self._held[key] -= 1

    def overlay(self, base: Path, target: Path, size: int = 0, subject: str = "") -> None:
        """Make a thin disk: a qcow2 file that holds what differs from `base`, with `size` bytes (0: as the base).

        It names its base by its full path, as a raw file. Raises `DiskTooSmall`.
        """
        needed = base.stat().st_size
        if size and size < needed:
            raise DiskTooSmall(subject, size, needed)
        with explaining_full(target):
            create(target, -(-size // SECTOR) * SECTOR or needed, base)

    def usage(self, used: Collection[str]) -> Usage:
        """Measure what the bases take of the disk; `used` are the images that machines are made of."""
        found = {path: disk_usage(path) for path in self._bases.iterdir()}
        needed = {self._path(key) for key in used} & found.keys()
        size = sum(found.values())
        spare = size - sum(found[path] for path in needed)
        return Usage(kind="disks", total=len(found), active=len(needed), size=size, reclaimable=spare)

    def prune(self, keep: Collection[str], *, dry_run: bool = False) -> int:
        """Delete the bases of images that aren't in `keep` and nobody holds; return the bytes freed."""
        freed = 0
        with self._lock:
            needed = {self._path(key) for key in (*keep, *(key for key, count in self._held.items() if count))}
            for path in self._bases.iterdir():
                if path not in needed:
                    freed += disk_usage(path)
                    if not dry_run:
                        self._making.discard(path)
        return freed

    def _path(self, key: str) -> Path:
        return self._bases / f"{key.partition(':')[2]}.raw"

    def _make(self, path: Path, digest: str, subject: str, count: Callable[[int], None]) -> None:
        manifest = manifests.parse(self._content.read(digest, limit=manifests.LIMIT), subject=subject)
        assert isinstance(manifest, Manifest)
        with explaining_full(path), self._making.draft() as draft:
            file = draft / "disk"
            with file.open("xb") as target:
                index.restore(self._content, manifest, target.fileno(), subject, count)
                target.flush()
                os.fsync(target.fileno())
            file.chmod(0o444)  # nobody but root gets into the directory
            file.rename(path)


def read(content: ContentStore, digest: str, subject: str) -> tuple[Manifest, Disk]:
    """Read the manifest and the configuration of a disk image."""
    manifest = manifests.parse(content.read(digest, limit=manifests.LIMIT), subject=subject)
    assert isinstance(manifest, Manifest)
    return manifest, index.read_config(content, manifest, subject)
