"""Blobs on their way in, for readers who don't want to wait until all of it is here.

What such a reader is given nobody has verified yet: only the end of the blob, which it sees when size and digest were
right and the bytes are on the disk, makes what it read good.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from trivet.base.error import Unavailable


class Abandoned(Unavailable):
    """A blob that stopped coming, or began again from the start, while it was read."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"download {path.name[:19]} did not go on")


class Growing:
    """How far a file that one thread writes is, for any number of readers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._size = 0
        self._restarts = 0
        self._complete = False
        self._abandoned = False

    def grow(self, size: int) -> None:
        """Tell that so many bytes can be read now; fewer than before mean that everything is new."""
        with self._changed:
            self._restarts += size < self._size
            self._size = size
            self._changed.notify_all()

    def end(self, *, complete: bool) -> None:
        """Tell that nothing more comes: the blob is complete and verified, or won't be."""
        with self._changed:
            self._complete, self._abandoned = complete, not complete
            self._changed.notify_all()

    def open(self) -> GrowingFile:
        """Read from the start."""
        with self._changed:
            return GrowingFile(self, self._path, self._restarts)

    def wait(self, at: int, restarts: int) -> int:
        """Wait for bytes behind `at`; return how many there are in all: `at` means the end. Raises `Abandoned`."""
        with self._changed:
            self._changed.wait_for(lambda: self._size > at or self._complete or self._gone(restarts))
            if self._gone(restarts):
                raise Abandoned(self._path)
            return self._size

    def _gone(self, restarts: int) -> bool:
        return self._abandoned or self._restarts != restarts


class GrowingFile:
    """A blob read while it comes. Context manager."""

    def __init__(self, growing: Growing, path: Path, restarts: int) -> None:
        self._growing = growing
        self._path = path
        self._restarts = restarts
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at = 0

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes, as soon as there are any; empty at the end of the complete blob."""
        here = self._growing.wait(self._at, self._restarts) - self._at
        piece = os.pread(self._file, here if size < 0 else min(size, here), self._at)
        if here and not piece:  # it was cut off just now, to begin again
            raise Abandoned(self._path)
        self._at += len(piece)
        return piece

    def tell(self) -> int:
        """Tell how much was read."""
        return self._at
