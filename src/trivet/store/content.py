"""The content store: blobs by digest, in an OCI image layout.

    ROOT/
    ├── oci-layout                 marks the directory for other tools
    ├── blobs/sha256/<digits>      complete and verified; never changed, only deleted
    ├── ingest/<random>            being written
    ├── partial/                   downloads to be continued: `store/partial`
    └── scratch/                   for what is made on the way; rubbish at start-up, as everything in ingest/

Names live in the records, not in an index.json: one fact, one owner. A blob appears by rename after
its digest and size were checked and its bytes reached the disk. What may be deleted is decided in
`store/collect`.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from trivet.base.error import Conflict, Corrupt, Exhausted, NotFound
from trivet.oci import digest as digests
from trivet.oci import layout
from trivet.store.elsewhere import Elsewhere, Nowhere
from trivet.store.growing import Growing, GrowingFile, Passage
from trivet.store.lease import Lease

CHUNK = 1 << 20
BRINGS = 3  # times a blob is brought that is gone again before it was opened
_BEGINNING = re.compile(r"sha(?:256:[0-9a-f]{1,64}|512:[0-9a-f]{1,128})")
FULL = {errno.ENOSPC: "no space left on device", errno.EDQUOT: "disk quota exceeded", errno.EFBIG: "file size limit"}


class BlobNotFound(NotFound):
    """Content that isn't in the store."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"blob {digest} is not in the content store")


class AmbiguousDigest(Conflict):
    """The beginning of several digests."""

    def __init__(self, text: str, count: int) -> None:
        super().__init__(f"digest {text} is ambiguous: {count} begin with it", hint="give more digits")


class SizeMismatch(Corrupt):
    """Content that is longer or shorter than promised."""

    def __init__(self, subject: str, expected: int, actual: int) -> None:
        super().__init__(f"{subject} is corrupt: it has {actual} bytes, expected {expected}")


class StoreFull(Exhausted):
    """No room for what is being written; `path` is the file that could not grow."""

    def __init__(self, path: str | Path, error: OSError) -> None:
        reason = FULL.get(error.errno or 0, str(error))
        super().__init__(f"cannot write {path}: {reason}", hint="free space, or try: trivet system prune")
        self.path = Path(path)


@contextmanager
def explaining_full(path: str | Path) -> Iterator[None]:
    """Turn the ways a disk is full into `StoreFull`; other errors travel on."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull(error.filename or path, error) from error
        raise


class Ingest:
    """A blob being written; made by `ContentStore.ingest`."""

    def __init__(self, path: Path, file: BinaryIO, algorithm: str, limit: int | None) -> None:
        self.path = path
        self.size = 0
        self._file = file
        self._limit = limit
        self._state = digests.hasher(algorithm)
        self._lost: OSError | None = None
        self.growing: Growing | None = None

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return digests.name(self._state)

    def write(self, data: bytes | memoryview) -> int:
        """Append. Raises `StoreFull`, and `SizeMismatch` as soon as there is more than was promised.

        Once that failed nobody knows how much of `data` is in the file, or in its buffer: it can't be continued.
        """
        with explaining_full(self.path):
            if self._lost:
                raise self._lost
            if self._limit is not None and self.size + len(data) > self._limit:
                raise SizeMismatch("content received", self._limit, self.size + len(data))
            try:
                written = self._file.write(data)
                self.size += len(data)
                self._state.update(data)
                self._grown()
            except OSError as error:
                self._lost = error
                raise
        return written

    @property
    def full(self) -> bool:
        """Tell whether more should only be written when it was followed further."""
        return self.growing is not None and self.growing.full

    def rehash(self, algorithm: str) -> None:
        """Go over to another digest algorithm; what was written so far is read again."""
        self._state = digests.hasher(algorithm)
        with explaining_full(self.path):
            self._file.flush()
        with self.path.open("rb") as file:
            while piece := file.read(CHUNK):
                self._state.update(piece)

    def adopt(self) -> None:
        """Take in what the file holds already; more than was promised is nothing."""
        self._file.seek(0, os.SEEK_END)
        self.size = self._file.tell()
        if self._limit is not None and self.size > self._limit:
            self.restart()
        self.rehash(self._state.name)
        self._grown()

    def restart(self) -> None:
        """Forget everything written, to begin again."""
        self._file.seek(0)
        self._file.truncate()
        self._state = digests.hasher(self._state.name)
        self.size = 0
        self._grown()

    def finish(self, digest: str | None, size: int | None) -> None:
        """Check size and digest, and see the bytes onto the disk."""
        subject = f"blob {digest}" if digest else "content received"
        with explaining_full(self.path):
            if self._lost:
                raise self._lost
            self._file.flush()
        if (there := os.fstat(self._file.fileno()).st_size) != self.size:
            raise SizeMismatch(subject, self.size, there)
        if size is not None and self.size != size:
            raise SizeMismatch(subject, size, self.size)
        if digest is not None and self.digest != digest:
            raise digests.DigestMismatch(subject, digest, self.digest)
        with explaining_full(self.path):
            os.fsync(self._file.fileno())

    def _grown(self) -> None:
        if self.growing:
            self._file.flush()
            self.growing.grow(self.size)


class ContentStore:
    """Blobs below `root`, which is made if it isn't there. Safe to use from several threads and processes.

    `elsewhere` knows of blobs that aren't here: `has`, `size`, `open` and `follow` reckon with them, nothing else does.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / layout.BLOBS
        self._ingests = root / "ingest"
        self.scratch = root / "scratch"
        for directory in (
            root,
            self._ingests,
            self.scratch,
            *(self._blobs / algorithm for algorithm in digests.LENGTHS),
        ):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._arriving: dict[str, Growing] = {}
        self.elsewhere: Elsewhere = Nowhere()
        marker = root / layout.MARKER
        if not marker.exists():
            marker.write_bytes(layout.MARKER_CONTENT)

    def path(self, digest: str) -> Path:
        """Tell where a blob is, or would be. Raises `MalformedDigest`."""
        return self.root / layout.blob(digest)

    def exists(self, digest: str) -> bool:
        """Tell whether a blob is here."""
        return self.path(digest).is_file()

    def has(self, digest: str) -> bool:
        """Tell whether a blob is here or can be brought."""
        return self.exists(digest) or self.elsewhere.size(digest) is not None

    def size(self, digest: str) -> int:
        """Tell a blob's size in bytes. Raises `BlobNotFound`."""
        with suppress(FileNotFoundError):
            return self.path(digest).stat().st_size
        size = self.elsewhere.size(digest)
        if size is None:
            raise BlobNotFound(digest)
        return size

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading; one that isn't here is brought first, which takes its time.

        Raises `BlobNotFound`, and why it could not be brought.
        """
        for _ in range(BRINGS):
            with suppress(BlobNotFound):
                return self._open(digest)
            if self.elsewhere.size(digest) is None:
                break
            self.elsewhere.bring(digest)
        return self._open(digest)

    def follow(self, digest: str, *, bring: bool = True) -> BinaryIO | GrowingFile:
        """Open a blob that is here, or one that is being fetched; others only with `bring`. Raises as `open`."""
        growing = self._arriving.get(digest)
        with suppress(FileNotFoundError):  # complete just now
            if growing:
                return growing.open()
        return self.open(digest) if bring else self._open(digest)

    @contextmanager
    def passing(self, digest: str, size: int, window: int) -> Iterator[Ingest]:
        """Write a blob for one who reads `Ingest.growing`, and keep nothing of it: at most `window` bytes at a time.

        The reader sees the end when size and digest were right. Whoever writes has to wait while `Ingest.full`.
        """
        path = self._ingests / secrets.token_hex(12)
        try:
            with explaining_full(path), path.open("xb") as file:
                ingest = Ingest(path, file, digests.split(digest)[0], size)
                growing = ingest.growing = Passage(path, window)
                with growing.ending():
                    yield ingest
                    ingest.finish(digest, size)
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def arriving(self, digest: str, ingest: Ingest) -> Iterator[None]:
        """Let others follow what is written, until the block ends: with the published blob, or by raising."""
        growing = ingest.growing = self._arriving[digest] = Growing(ingest.path)
        with growing.ending():
            try:
                yield
            finally:
                del self._arriving[digest]

    def read(self, digest: str, *, limit: int) -> bytes:
        """Read a small blob that is here (manifest, configuration) and verify it.

        Raises `BlobNotFound`, and `Corrupt` if it is over `limit`.
        """
        with self._open(digest) as file:
            data = file.read(min(limit + 1, _most(file)))
        if len(data) > limit:
            raise Corrupt(f"blob {digest} is corrupt: larger than {limit} bytes")
        actual = digests.of(data, digest.partition(":")[0])
        if actual != digest:
            raise digests.DigestMismatch(f"blob {digest}", digest, actual)
        return data

    @contextmanager
    def ingest(
        self,
        digest: str | None = None,
        size: int | None = None,
        *,
        algorithm: str = "sha256",
        lease: Lease | None = None,
    ) -> Iterator[Ingest]:
        """Write a blob; it appears when the block ends, and never does if the block raises.

        Without `digest` the content names itself: read `Ingest.digest` after the block. `lease` is
        given the digest before the blob appears.
        Raises `DigestMismatch`, `SizeMismatch`, `StoreFull`.
        """
        if digest is not None:
            algorithm, _ = digests.split(digest)
        path = self._ingests / secrets.token_hex(12)
        try:
            with explaining_full(path), path.open("xb") as file:
                ingest = Ingest(path, file, algorithm, size)
                yield ingest
                ingest.finish(digest, size)
            if lease:
                lease.add(ingest.digest)
            with explaining_full(path):
                self.publish(path, ingest.digest)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def add(self, data: bytes, digest: str | None = None, *, lease: Lease | None = None) -> str:
        """Store a few bytes, unless they are here; return their digest."""
        actual = digests.of(data, digest.partition(":")[0] if digest else "sha256")
        if digest in (None, actual):
            if lease:
                lease.add(actual)
            with suppress(FileNotFoundError):
                if self.path(actual).read_bytes() == data:
                    return actual
        with self.ingest(digest, len(data), lease=lease) as ingest:
            ingest.write(data)
        return ingest.digest

    def delete(self, digest: str) -> int:
        """Delete a blob if it is here; return its size. Only `store/collect` and repairs should."""
        path = self.path(digest)
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            return size
        return 0

    def walk(self) -> Iterator[tuple[str, int]]:
        """List all blobs and their sizes; files that are no blobs are passed over."""
        for algorithm, length in digests.LENGTHS.items():
            for entry in os.scandir(self._blobs / algorithm):
                if len(entry.name) == length and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        yield f"{algorithm}:{entry.name}", entry.stat().st_size

    def find(self, text: str, also: Iterable[str] = ()) -> str:
        """Find a blob, or one of the digests of `also`, by its digest or, without `sha256:`, the beginning of one.

        Raises `MalformedDigest`, `BlobNotFound`, `AmbiguousDigest`.
        """
        wanted = text if ":" in text else f"sha256:{text}"
        if not _BEGINNING.fullmatch(wanted):
            raise digests.MalformedDigest(text)
        here = (digest for digest, _ in self.walk())
        found = list(dict.fromkeys(digest for digest in (*here, *also) if digest.startswith(wanted)))
        if len(found) > 1:
            raise AmbiguousDigest(text, len(found))
        if not found:
            raise BlobNotFound(text)
        return found[0]

    def verify(self, digest: str) -> None:
        """Read a blob that is here in full. Raises `BlobNotFound`, `DigestMismatch` when it isn't what it was."""
        state = digests.hasher(digest.partition(":")[0])
        with self._open(digest) as file:
            while chunk := file.read(CHUNK):
                state.update(chunk)
        if digests.name(state) != digest:
            raise digests.DigestMismatch(f"blob {digest}", digest, digests.name(state))

    def _open(self, digest: str) -> BinaryIO:
        with _explaining_missing(digest):
            return self.path(digest).open("rb")

    def sweep(self) -> None:
        """Delete what writers that died left behind; at start-up, when nobody is writing."""
        for directory in (self._ingests, self.scratch):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700, exist_ok=True)

    def free(self) -> int:
        """Bytes left on the store's file system."""
        return shutil.disk_usage(self.root).free

    def publish(self, path: Path, digest: str) -> None:
        """Give a complete, verified and synced file of this file system the place of its digest."""
        target = self.path(digest)
        path.chmod(0o400)
        path.rename(target)
        descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _explaining_missing(digest: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BlobNotFound(digest) from error


def _most(file: BinaryIO) -> int:
    """Tell how much a file may hold: reading makes room for as much as is asked for. What isn't a file doesn't say."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else sys.maxsize
