"""Blobs on their way in, for readers who don't want to wait until all of it is here.

What such a reader is given nobody has verified yet: only the end of the blob, which it sees when size and digest were
right and the bytes are on the disk, makes what it read good.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.base.error import Unavailable
from trivet.kernel import hole

STEP = 1 << 20  # bytes given back at a time


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

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End with the block, complete unless it raises."""
        complete = False
        try:
            yield
            complete = True
        finally:
            self.end(complete=complete)

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

    def take(self, at: int) -> None:
        """Hear that a reader has read up to there."""

    @property
    def full(self) -> bool:
        """Tell whether whoever writes should wait for the reader."""
        return False

    def _gone(self, restarts: int) -> bool:
        return self._abandoned or self._restarts != restarts


class Passage(Growing):
    """A file that one reader follows and nobody keeps: what was read is given back to the disk at once.

    At most about `window` bytes of it are there, if the writer waits while it is `full`.
    """

    def __init__(self, path: Path, window: int) -> None:
        super().__init__(path)
        self._window = window
        self._taken = 0
        self._returned = 0
        self._left = False

    def grow(self, size: int) -> None:
        """Tell that so many bytes came in all, and give back what was read of them."""
        with self._changed:
            if size < self._size:
                self._taken = self._returned = 0
            end = (size if self._left else self._taken) // STEP * STEP
        super().grow(size)
        if end > self._returned:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                hole.punch(descriptor, self._returned, end - self._returned)
            finally:
                os.close(descriptor)
            self._returned = end

    def take(self, at: int) -> None:
        """Hear that the reader has read up to there."""
        with self._changed:
            self._taken = max(self._taken, at)

    def leave(self) -> None:
        """Hear that nobody reads any more: the rest may come and go as it likes."""
        with self._changed:
            self._left = True

    @property
    def full(self) -> bool:
        """Tell whether the reader is so far behind that the writer should wait."""
        with self._changed:
            return not self._left and self._size - self._taken > self._window


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
        self._growing.take(self._at)
        return piece

    def tell(self) -> int:
        """Tell how much was read."""
        return self._at
