"""Uploads under way: each an ingest of the content store that lives over several requests.

An upload ends with its blob, a cancel, an hour without a byte, or the process; what it had is gone then.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

from trivet.base.error import Exhausted
from trivet.oci import digest as digests
from trivet.registry.server.error import Code, Refusal
from trivet.store.content import ContentStore, Ingest, StoreFull

MOST = 500  # open at a time; each has a file open
PER_REPOSITORY = 200
IDLE = 3600.0  # seconds until an upload nobody continues is dropped
SLOW = 60.0  # the same, where others need the room
BUSY = 10.0  # seconds a request waits for the one before it


class Upload:
    """One upload of one repository."""

    def __init__(self, key: str, name: str, content: ContentStore, algorithm: str) -> None:
        self.key = key
        self.name = name
        self.touched = time.monotonic()
        self.lock = asyncio.Lock()
        self._open = ExitStack()
        self.ingest: Ingest = self._open.enter_context(content.ingest(algorithm=algorithm))

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.ingest.size

    def expect(self, digest: str) -> None:
        """Raise `Refusal` unless what was received has this digest."""
        algorithm, _ = digests.split(digest)
        if not self.ingest.digest.startswith(f"{algorithm}:"):
            self.ingest.rehash(algorithm)
        if self.ingest.digest != digest:
            raise Refusal(Code.DIGEST_INVALID, f"what was received has the digest {self.ingest.digest}, not {digest}")

    def publish(self) -> None:
        """Make what was received a blob."""
        self._open.close()

    def drop(self) -> None:
        """Throw away what was received."""
        error = asyncio.CancelledError()
        with suppress(StoreFull):  # of what there was no room for something may still wait to be written
            self._open.__exit__(type(error), error, None)


class Uploads:
    """All uploads of one registry."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._all: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._all)

    async def begin(self, name: str, algorithm: str = "sha256") -> Upload:
        """Begin an upload to a repository; where there are too many, those nobody continues give way, or `Refusal`."""
        await self.expire(IDLE)
        if self._full(name):
            await self.expire(SLOW)
        if self._full(name):
            raise Refusal(Code.TOOMANYREQUESTS, "too many uploads are open", headers={"Retry-After": "10"})
        key = secrets.token_hex(16)
        upload = self._all[key] = Upload(key, name, self._content, algorithm)
        return upload

    def find(self, name: str, key: str) -> Upload:
        """Find an upload of this very repository. Raises `Refusal`."""
        upload = self._all.get(key)
        if upload is None or upload.name != name:
            raise Refusal(Code.BLOB_UPLOAD_UNKNOWN, f"no such upload in {name}")
        return upload

    @asynccontextmanager
    async def hold(self, name: str, key: str) -> AsyncIterator[Upload]:
        """Find an upload and keep others off it; waits a little for a request whose client is gone already."""
        upload = self.find(name, key)
        try:
            async with asyncio.timeout(BUSY):
                await upload.lock.acquire()
        except TimeoutError:
            raise Refusal(Code.BLOB_UPLOAD_INVALID, "another request works on this upload", status=409) from None
        try:
            self.find(name, key)  # it may have ended while we waited
            yield upload
        except Exhausted:  # nobody knows what of it is here: the client has to begin anew
            await self.drop(upload)
            raise
        finally:
            upload.touched = time.monotonic()
            upload.lock.release()

    async def publish(self, upload: Upload) -> None:
        """End an upload with its blob."""
        self._all.pop(upload.key, None)
        await asyncio.to_thread(upload.publish)

    async def drop(self, upload: Upload) -> None:
        """End an upload without a blob."""
        self._all.pop(upload.key, None)
        await asyncio.to_thread(upload.drop)

    async def expire(self, idle: float) -> None:
        """Drop uploads that nobody continued for so many seconds."""
        limit = time.monotonic() - idle
        for upload in [each for each in self._all.values() if each.touched < limit and not each.lock.locked()]:
            await self.drop(upload)

    def _full(self, name: str) -> bool:
        mine = sum(each.name == name for each in self._all.values())
        return len(self._all) >= MOST or mine >= PER_REPOSITORY

    async def close(self) -> None:
        """Drop all."""
        for upload in list(self._all.values()):
            await self.drop(upload)
