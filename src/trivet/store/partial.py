"""Downloads that broke off: kept under the digest they are to have, and continued at the byte.

    ROOT/partial/<algorithm>-<digits>     grows until it is the blob; a lock on the file has its writer

What they hold is checked as a whole at the end, as always. They go when they turn out wrong, when the
disk is full, with `prune`, and at start-up when nobody wanted them for a week.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from trivet.base.error import Corrupt
from trivet.oci import digest as digests
from trivet.store.content import ContentStore, Ingest, StoreFull, explaining_full
from trivet.store.lease import Lease

WEEK = 7 * 86400.0


class Partials:
    """The unfinished blobs of a content store."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._directory = content.root / "partial"
        self._directory.mkdir(mode=0o700, exist_ok=True)

    def size(self, digest: str) -> int:
        """Tell how many bytes of a blob are here."""
        with suppress(FileNotFoundError):
            return self._path(digest).stat().st_size
        return 0

    @contextmanager
    def ingest(self, digest: str, size: int, *, lease: Lease | None = None) -> Iterator[Ingest]:
        """As `ContentStore.ingest`, but begin with what is here and keep it when the block raises.

        A second writer at the same time, in whatever process, gets an ordinary ingest.
        """
        file = _locked(self._path(digest))
        if file is None:
            with self._content.ingest(digest, size, lease=lease) as ingest:
                yield ingest
            return
        path = self._path(digest)
        with explaining_full(path), file:
            ingest = Ingest(path, file, digests.split(digest)[0], size)
            try:
                with self._content.arriving(digest, ingest):
                    ingest.adopt()
                    yield ingest
                    ingest.finish(digest, size)
                    if lease:
                        lease.add(digest)
                    self._content.publish(path, digest)
            except (Corrupt, StoreFull):
                path.unlink(missing_ok=True)
                raise
            except BaseException:
                if not ingest.size:
                    path.unlink(missing_ok=True)
                raise

    def drop(self, *, older: float = 0.0, dry_run: bool = False) -> int:
        """Delete those nobody writes, and wrote in the last `older` seconds; return the bytes freed."""
        freed, limit = 0, time.time() - older
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError), path.open("rb") as file, suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                state = os.fstat(file.fileno())
                if state.st_mtime <= limit:
                    freed += state.st_size
                    if not dry_run:
                        path.unlink()
        return freed

    def _path(self, digest: str) -> Path:
        return self._directory / "-".join(digests.split(digest))


def _locked(path: Path) -> BinaryIO | None:
    """Open or make a file for its only writer; None when it has one."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        file = cast(BinaryIO, open(descriptor, "r+b"))  # noqa: PTH123, SIM115 - a descriptor
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if os.fstat(descriptor).st_nlink:
            return file
        file.close()  # it was finished or dropped between the two calls
