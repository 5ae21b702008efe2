"""What RUN --mount=type=cache keeps between builds: a directory for each id, shown as a whole and never looked into."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.build.mount import RunMount
from trivet.engine.snapshot.making import disk_usage


class Kept:
    """All kept directories of one engine, below `directory`.

    A private cache that is in use has further copies, `NAME-1` and so on, for those who come meanwhile.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()

    @staticmethod
    def name(mount: RunMount, base: str = "") -> str:
        """Name a directory; an id is never a path. `base` says what it began with."""
        return hashlib.sha256(f"{mount.id}\0{base}".encode() if base else mount.id.encode()).hexdigest()[:32]

    def is_new(self, mount: RunMount, base: str) -> bool:
        """Tell whether the next `use` would make a directory."""
        return not (self.directory / self._free(mount, base)).is_dir()

    @contextmanager
    def use(self, mount: RunMount, base: str = "", begin: Path | None = None) -> Iterator[Path]:
        """Use a directory, made with the owner and mode asked for when it is new, then as a copy of `begin`."""
        with self._lock:
            name = self._free(mount, base)
            self._users[name] += 1
        try:
            path = self.directory / name
            if not path.is_dir():
                self._make(path, mount, begin)
            yield path
        finally:
            self._users[name] -= 1

    def size(self) -> int:
        """Measure them, in bytes on disk."""
        return sum(disk_usage(path) for path in self.directories())

    def clear(self, *, dry_run: bool = False) -> int:
        """Delete those nobody uses right now; return the bytes freed."""
        unused = [path for path in self.directories() if not self._users[path.name]]
        freed = sum(disk_usage(path) for path in unused)
        for path in unused if not dry_run else ():
            shutil.rmtree(path, ignore_errors=True)
        return freed

    def directories(self) -> list[Path]:
        """List them, in order of their names."""
        return sorted(self.directory.iterdir()) if self.directory.is_dir() else []

    def _free(self, mount: RunMount, base: str) -> str:
        """Name the directory to use: of a private cache one that nobody uses."""
        name, number = self.name(mount, base), 0
        free = name
        while mount.sharing == "private" and self._users[free]:
            number += 1
            free = f"{name}-{number}"
        return free

    def _make(self, path: Path, mount: RunMount, begin: Path | None) -> None:
        """Make a directory; one that a crash leaves half-made has another name."""
        making = path.with_name(f"{path.name}.new")
        shutil.rmtree(making, ignore_errors=True)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if begin is None:
            making.mkdir(mode=0o700)
        else:
            begin.rename(making)
        making.chmod(mount.mode)
        os.chown(making, mount.uid, mount.gid)
        making.rename(path)
