"""Pushing to a registry: blobs it lacks, then the manifests that need them (OCI distribution-spec, push).

A blob goes up in chunks. Where a chunk breaks off, the registry is asked how much it has and the upload
goes on from there; where it has forgotten the upload, it begins anew. Manifests travel as the bytes they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import BinaryIO

import aiohttp
from yarl import URL

from trivet.base.error import TrivetError
from trivet.oci import digest as digests
from trivet.oci.descriptor import Descriptor
from trivet.registry import referrer
from trivet.registry.answer import expect, reason_of
from trivet.registry.auth import Credentials
from trivet.registry.error import RegistryUnavailable, UploadRefused
from trivet.registry.transport import Transport

PIECE = 1 << 20
SMALL = 1 << 20  # a rest this small travels with the request that ends the upload
CHUNK = 64 << 20  # what goes up in one request, and may be lost with it
STALL = 60.0  # seconds without a byte taken or a word said
RETRIES = 5  # times an upload may break off without a byte of progress

EMPTY = {"Content-Length": "0"}

Count = Callable[[int], None]
"""Called with the bytes of a blob sent so far."""


class Way(StrEnum):
    """How a blob came to be in the repository."""

    EXISTS = "exists"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


class _LostTrack(Exception):
    """The registry doesn't know an upload any more, or not at this byte."""


class Pusher:
    """Uploads to one repository of a registry. Async context manager.

    `sources` are other repositories of the same registry, which blobs may be mounted from.
    """

    def __init__(
        self,
        domain: str,
        repository: str,
        credentials: Credentials | None = None,
        sources: Sequence[str] = (),
        *,
        insecure: bool = False,
    ) -> None:
        self.domain = domain
        self.repository = repository
        scopes = (f"repository:{repository}:pull,push", *(f"repository:{each}:pull" for each in sources))
        self._transport = Transport(domain, credentials, scopes, insecure=insecure)

    async def __aenter__(self) -> Pusher:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._transport.__aexit__(*exception)

    async def blob(self, descriptor: Descriptor, opened: Callable[[], BinaryIO], count: Count, source: str = "") -> Way:
        """See that the repository has a blob: find it there, mount it from the repository `source`, or upload it.

        `opened` opens the content. Raises `RegistryUnavailable`, `UploadRefused`, `AccessDenied`, `LoginRequired`.
        """
        if await self.has(descriptor):
            return Way.EXISTS
        upload = await self._mount(descriptor, source) if source else await self.begin()
        if upload is None:
            return Way.MOUNTED
        with await asyncio.to_thread(opened) as file:
            await _Upload(self, self._transport, descriptor, file, count).run(upload)
        return Way.UPLOADED

    async def has(self, descriptor: Descriptor) -> bool:
        """Ask whether the repository has a blob."""
        url = await self._transport.url(self.repository, f"blobs/{descriptor.digest}")
        async with self._transport.request("HEAD", self.repository, url) as answer:
            if answer.status == 404:
                return False
            await self.expect(answer, f"blob {descriptor.digest} in {self.repository}", {200})
            return True

    async def manifest(self, raw: bytes, media_type: str, identifier: str) -> str:
        """Store a manifest or index, under a tag or its digest; return the digest.

        One with a subject is also found by who asks for the subject's referrers, whatever the registry is.
        """
        await self._put(raw, media_type, identifier)
        return identifier if ":" in identifier else digests.of(raw)

    async def named(self, raw: bytes, media_type: str, digest: str, tag: str) -> str:
        """Store a manifest under its digest, and a tag if there is one; return the digest the registry has for it.

        Of what comes under a tag alone a registry makes the digest itself, by sha256. One by another algorithm goes
        under the digest, with the tag in the query (distribution-spec 1.1 and later), where the registry knows that.
        """
        if not tag or digest.startswith("sha256:"):
            return await self.manifest(raw, media_type, tag or digest)
        with suppress(UploadRefused):
            if tag in await self._put(raw, media_type, digest, tag):
                return digest
        return await self.manifest(raw, media_type, tag)

    async def _put(self, raw: bytes, media_type: str, identifier: str, *tags: str) -> list[str]:
        """Store a manifest; return the tags of the query that the registry has given it."""
        promised = identifier if ":" in identifier else digests.of(raw)
        url = (await self._transport.url(self.repository, f"manifests/{identifier}")).update_query({"tag": tags})
        headers = {"Content-Type": media_type}
        async with self._transport.request("PUT", self.repository, url, headers, raw) as answer:
            await self.expect(answer, f"manifest {identifier} of {self.repository}", {201})
            told = answer.headers.get("Docker-Content-Digest", promised)
            known = answer.headers.get("OCI-Subject", "")
            given = answer.headers.getall("OCI-Tag", [])
        if told.startswith("sha256:") and promised.startswith("sha256:") and told != promised:
            raise UploadRefused(self.domain, f"manifest {identifier}", f"it stored {told} instead of {promised}")
        if not known and (note := referrer.noted(raw, media_type, promised)):
            await referrer.note(self._transport, self.domain, self.repository, note)
        return given

    async def expect(self, answer: aiohttp.ClientResponse, what: str, good: set[int]) -> None:
        """Raise the error that fits an answer that isn't `good`."""
        await expect(answer, self.domain, self.repository, what, good)

    async def begin(self) -> URL:
        """Begin an upload; return where it goes."""
        url = await self._transport.url(self.repository, "blobs/uploads/")
        async with self._transport.request("POST", self.repository, url, EMPTY) as answer:
            await self.expect(answer, f"an upload to {self.repository}", {202})
            return self._transport.location(answer)

    async def _mount(self, descriptor: Descriptor, source: str) -> URL | None:
        """Take a blob from another repository; where that isn't possible, an upload has begun and is returned."""
        url = await self._transport.url(self.repository, "blobs/uploads/")
        url = url.update_query({"mount": descriptor.digest, "from": source})
        async with self._transport.request("POST", self.repository, url, EMPTY) as answer:
            await self.expect(answer, f"an upload to {self.repository}", {201, 202})
            return self._transport.location(answer) if answer.status == 202 else None


class _Upload:
    """One blob on its way."""

    def __init__(
        self, pusher: Pusher, transport: Transport, descriptor: Descriptor, file: BinaryIO, count: Count
    ) -> None:
        self._pusher = pusher
        self._transport = transport
        self._descriptor = descriptor
        self._file = file
        self._count = count
        self._what = f"blob {descriptor.digest} in {pusher.repository}"
        self._sent = 0  # bytes the registry is known to have

    async def run(self, upload: URL) -> None:
        """Send everything, going on where it breaks off."""
        failures, furthest, broken = 0, 0, False
        while True:
            try:
                if broken and await self._pusher.has(self._descriptor):
                    return  # only the answer was lost
                upload = await self._resume(upload) if broken else upload
                while self._descriptor.size - self._sent > SMALL:
                    upload = await self._chunk(upload)
                await self._commit(upload)
                return
            except (aiohttp.ClientError, TimeoutError, RegistryUnavailable, _LostTrack) as error:
                failures = 0 if self._sent > furthest else failures + 1
                if failures >= RETRIES:
                    raise self._broken(error) from error
            furthest, broken = max(furthest, self._sent), True
            await asyncio.sleep(0.2 * 2**failures)

    async def _chunk(self, upload: URL) -> URL:
        """Send the next chunk; return where the one after it goes."""
        length = min(CHUNK, self._descriptor.size - self._sent)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(length),
            "Content-Range": f"{self._sent}-{self._sent + length - 1}",
        }
        async with self._sending("PATCH", upload, headers, length) as answer:
            if answer.status in (404, 416):
                raise _LostTrack(f"status {answer.status}")
            await self._pusher.expect(answer, self._what, {202})
            self._sent = _received(answer, default=self._sent + length)
            return self._transport.location(answer)

    async def _commit(self, upload: URL) -> None:
        """Send what is left, if anything, and give the blob its digest."""
        left = self._descriptor.size - self._sent
        url = upload.update_query({"digest": self._descriptor.digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(left)}
        async with self._sending("PUT", url, headers, left) as answer:
            if answer.status in (404, 416):
                raise _LostTrack(f"status {answer.status}")
            await self._pusher.expect(answer, self._what, {201})

    async def _resume(self, upload: URL) -> URL:
        """Ask how much the registry has; begin anew where it can't say."""
        async with self._transport.request("GET", self._pusher.repository, upload) as answer:
            if answer.status == 204:
                self._sent = min(_received(answer, default=0), self._descriptor.size)
                return self._transport.location(answer) if "Location" in answer.headers else upload
        self._sent = 0
        return await self._pusher.begin()

    @asynccontextmanager
    async def _sending(
        self, method: str, url: URL, headers: dict[str, str], length: int
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send `length` bytes from where we are; give up when nothing moves for a while."""
        start, now = self._sent, asyncio.get_running_loop().time
        async with asyncio.timeout(STALL) as patience:

            async def pieces() -> AsyncIterator[bytes]:
                await asyncio.to_thread(self._file.seek, start)
                left = length
                while left and (piece := await asyncio.to_thread(self._file.read, min(PIECE, left))):
                    yield piece
                    left -= len(piece)
                    patience.reschedule(now() + STALL)
                    self._count(start + length - left)

            body = pieces if length else b""
            async with self._transport.request(method, self._pusher.repository, url, headers, body) as answer:
                yield answer

    def _broken(self, error: Exception) -> TrivetError:
        if isinstance(error, TrivetError):
            return error
        return RegistryUnavailable(self._pusher.domain, f"{self._what} broke off again and again: {reason_of(error)}")


def _received(answer: aiohttp.ClientResponse, *, default: int) -> int:
    """Read `Range: 0-N`: how much of an upload the registry has. 0-0 is what registries say of nothing."""
    first, _, last = answer.headers.get("Range", "").removeprefix("bytes=").partition("-")
    if first != "0" or not (last.isascii() and last.isdigit()):
        return default
    return int(last) + 1 if int(last) else 0
