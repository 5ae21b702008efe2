"""A directory for what is half-made or half-deleted, so that nothing under its real name ever is.

Things are made here and get their name by rename when they are complete; things to delete lose their
name by rename first. What a crash leaves here is rubbish.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.base import tree


class Making:
    """The directory `directory`, on the file system of what is made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._busy = set[str]()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Hand out an empty directory, mode 0700; what is still there when the block ends is deleted."""
        path = self._directory / secrets.token_hex(8)
        self._busy.add(path.name)
        try:
            path.mkdir(mode=0o700)
            yield path
        finally:
            tree.delete(path)
            self._busy.discard(path.name)

    def discard(self, path: Path) -> None:
        """Delete a file or directory, out of sight at once; fine if it isn't there."""
        if grave := self._bury(path):
            tree.delete(grave)
            self._busy.discard(grave.name)

    def discard_later(self, path: Path) -> None:
        """Delete it, out of sight at once and from the disk soon."""
        if grave := self._bury(path):
            tree.delete_later(grave, lambda: self._busy.discard(grave.name))

    def _bury(self, path: Path) -> Path | None:
        grave = self._directory / secrets.token_hex(8)
        self._busy.add(grave.name)
        try:
            path.rename(grave)
        except OSError as error:
            self._busy.discard(grave.name)
            if isinstance(error, FileNotFoundError):
                return None
            raise
        return grave

    def leftovers(self) -> list[Path]:
        """List the rubbish: what is here and nobody of this process works on."""
        return [Path(entry.path) for entry in os.scandir(self._directory) if entry.name not in self._busy]

    def sweep(self) -> None:
        """Delete the rubbish, soon."""
        for path in self.leftovers():
            self.discard_later(path)


def disk_usage(path: Path) -> int:
    """Add up the disk blocks of a file, or of everything below a directory, hard links once, mounts not at all.

    In bytes; nothing for what isn't there.
    """
    try:
        state = path.lstat()
    except FileNotFoundError:
        return 0
    device = state.st_dev
    total, seen = state.st_blocks * 512, set[int]()
    pending = [os.fspath(path)] if path.is_dir() and not path.is_symlink() else []
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if state.st_dev != device:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif state.st_nlink > 1:
                if state.st_ino in seen:
                    continue
                seen.add(state.st_ino)
            total += state.st_blocks * 512
    return total
