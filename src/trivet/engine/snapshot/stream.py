"""Layer streams: decompressing by what the bytes are, hashing, budgets, overlapped with the reader.

gzip goes through isal (twice zlib's speed), zstd through zstandard; both are read in bounded pieces, so a
bomb costs time up to the budget and no memory.
"""

from __future__ import annotations

import io
import queue
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Protocol, cast

import msgspec
import zstandard
from isal import igzip, isal_zlib

from trivet.base.error import Corrupt, Exhausted
from trivet.oci import digest as digests

CHUNK = 1 << 20
GZIP, ZSTD, BZIP2, XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"
WINDOW = 64 << 20  # largest zstd window we allocate

# isal has no types for these two.
_open_gzip = cast(Callable[..., "Readable"], igzip.IGzipFile)
_BROKEN: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    zlib.error,
    zstandard.ZstdError,
    cast(type[Exception], isal_zlib.error),
)


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer may cost. The ratio (unpacked to packed) is judged once `ratio_from` bytes are unpacked."""

    bytes: int = 256 << 30
    file: int = 1 << 44
    entries: int = 3_000_000
    directories: int = 300_000
    depth: int = 256
    path: int = 4096
    ratio: int = 1100
    ratio_from: int = 1 << 30


class BudgetExceeded(Exhausted):
    """A layer that wants more than it may have: probably a bomb."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"layer exceeds the limit of {limit} {what}")


class BrokenCompression(Corrupt):
    """A stream that can't be decompressed."""

    def __init__(self, subject: str, problem: object) -> None:
        super().__init__(f"{subject} cannot be decompressed: {problem}")


class Readable(Protocol):
    """Anything bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes; empty at the end."""


class Counted(Readable, Protocol):
    """A stored layer, or one that is still coming."""

    def tell(self) -> int:
        """Tell how much of it was read."""


def decompressed(file: Readable, *, subject: str) -> Readable:
    """Open a gzip, zstd or plain stream for reading, told apart by its first bytes.

    Its `read` raises `BrokenCompression` about `subject`.
    """
    head = b""
    while len(head) < 6 and (piece := file.read(6 - len(head))):
        head += piece
    source = cast(BinaryIO, io.BufferedReader(_Joined(head, file), CHUNK))
    if head.startswith(GZIP):
        return _Explained(_open_gzip(fileobj=source, mode="rb"), subject)
    if head.startswith(ZSTD):
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(source, read_across_frames=True)
        return _Explained(reader, subject)
    if head.startswith((BZIP2, XZ)):
        raise BrokenCompression(subject, "bzip2 and xz are not supported, only gzip and zstd")
    return source


class LayerStream:
    """The uncompressed tar of a stored layer: counted, hashed, produced by a thread of its own.

    Use as a context manager; `diff_id` is right when `read` has returned nothing.
    """

    def __init__(self, file: Counted, *, subject: str, budget: Budget, algorithm: str = "sha256") -> None:
        self._file = file
        self._subject = subject
        self._budget = budget
        self._state = digests.hasher(algorithm)
        self._total = 0
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(maxsize=8)
        self._stop = threading.Event()
        self._ended = False
        self._watcher: Callable[[int], None] | None = None
        self._thread = threading.Thread(target=self._produce, name="layer-stream", daemon=True)

    def __enter__(self) -> LayerStream:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._pieces.get(timeout=0.05)
        self._thread.join()

    @property
    def diff_id(self) -> str:
        """The digest of everything that was read."""
        return digests.name(self._state)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next piece, of whatever size; empty at the end."""
        if self._ended:
            return b""
        piece = self._pieces.get()
        if isinstance(piece, BaseException):
            raise piece
        self._ended = not piece
        if self._watcher and piece:
            self._watcher(self._file.tell())
        return piece

    def watch(self, watcher: Callable[[int], None]) -> None:
        """Have `watcher` called now and then, from `read`, with the bytes of the stored layer consumed so far."""
        self._watcher = watcher

    def _produce(self) -> None:
        try:
            source = decompressed(self._file, subject=self._subject)
            while not self._stop.is_set():
                piece = source.read(CHUNK)
                self._account(len(piece))
                self._state.update(piece)
                self._pieces.put(piece)
                if not piece:
                    return
        except BaseException as error:
            self._pieces.put(error)

    def _account(self, size: int) -> None:
        self._total += size
        if self._total > self._budget.bytes:
            raise BudgetExceeded("bytes unpacked", self._budget.bytes)
        if self._total > self._budget.ratio_from and self._total > self._budget.ratio * max(self._file.tell(), 1):
            raise BudgetExceeded("times its packed size", self._budget.ratio)


class _Explained:
    """A decompressor whose errors say what was being decompressed."""

    def __init__(self, source: Readable, subject: str) -> None:
        self._source = source
        self._subject = subject

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._source.read(size)
        except _BROKEN as error:
            raise BrokenCompression(self._subject, error) from error


class _Joined(io.RawIOBase):
    """A few bytes already read, then the rest of the file."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(cast(bytearray, buffer))
        piece = self._head[: len(view)] or self._rest.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(piece)] = piece
        return len(piece)
