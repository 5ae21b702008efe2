"""What RUN --mount=type=cache keeps between builds: a directory for each id, shown as a whole and never looked into."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.build.mount import RunMount
from trivet.engine.snapshot.making import disk_usage


class Kept:
    """All kept directories of one engine, below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._users: Counter[str] = Counter()

    @staticmethod
    def name(mount: RunMount) -> str:
        """Name a directory; an id is never a path."""
        return hashlib.sha256(mount.id.encode()).hexdigest()[:32]

    @contextmanager
    def use(self, mount: RunMount) -> Iterator[Path]:
        """Use a directory, made with the owner and mode asked for when it is new."""
        name = self.name(mount)
        self._users[name] += 1
        try:
            path = self._directory / name
            if not path.is_dir():
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.chmod(mount.mode)
                os.chown(path, mount.uid, mount.gid)
            yield path
        finally:
            self._users[name] -= 1

    def size(self) -> int:
        """Measure them, in bytes on disk."""
        return sum(disk_usage(path) for path in self._all())

    def clear(self, *, dry_run: bool = False) -> int:
        """Delete those nobody uses right now; return the bytes freed."""
        unused = [path for path in self._all() if not self._users[path.name]]
        freed = sum(disk_usage(path) for path in unused)
        for path in unused if not dry_run else ():
            shutil.rmtree(path, ignore_errors=True)
        return freed

    def _all(self) -> list[Path]:
        return list(self._directory.iterdir()) if self._directory.is_dir() else []
