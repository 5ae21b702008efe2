"""A registry's client: manifests and blobs, verified (OCI distribution-spec, pull)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import aiohttp
import msgspec

from trivet.base.error import Corrupt, TrivetError
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci.descriptor import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from trivet.oci.manifest import Index
from trivet.registry import referrer
from trivet.registry.answer import body_of, expect
from trivet.registry.auth import Credentials
from trivet.registry.error import NotInRegistry, RegistryUnavailable
from trivet.registry.transport import Transport
from trivet.store.content import Ingest

ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
MOST_PAGES = 100
_NEXT = re.compile(r"<[^>]*\?([^>\s]+)>\s*;\s*rel=\"?next")  # of the address only the query: the host stays the same
PAUSE = 0.005  # seconds until it is looked again whether there is room for more of a blob
RESUMES = 5  # times a blob may break off without a byte of progress

Count = Callable[[int], None]
"""Called with the bytes of a blob received so far."""


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest or index as the registry sent it."""

    raw: bytes
    digest: str
    media_type: str


class RegistryClient:
    """One registry, named by the domain of a reference. Async context manager."""

    def __init__(
        self, domain: str, credentials: Credentials | None = None, *, insecure: bool = False, guarded: bool = False
    ) -> None:
        self.domain = domain
        self._transport = Transport(domain, credentials, insecure=insecure, guarded=guarded)

    async def __aenter__(self) -> RegistryClient:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._transport.__aexit__(*exception)

    async def ping(self) -> None:
        """Make sure that a registry answers. Raises `RegistryUnavailable` within seconds."""
        await self._transport.ping()

    async def manifest(self, repository: str, identifier: str) -> Fetched:
        """Fetch a manifest or index by tag or digest, and verify it. Raises `NotInRegistry`, `DigestMismatch`."""
        async with self._transport.get(repository, f"manifests/{identifier}", {"Accept": ACCEPT}) as answer:
            await expect(answer, self.domain, repository, f"image {repository} with {_kind(identifier)} {identifier}")
            raw = await body_of(answer, self.domain, manifests.LIMIT)
            if len(raw) > manifests.LIMIT:
                raise Corrupt(f"registry {self.domain} sent a manifest larger than {manifests.LIMIT >> 20} MiB")
            kind, told = answer.headers.get("Content-Type", ""), answer.headers.get("Docker-Content-Digest", "")
        promised = identifier if ":" in identifier else told
        actual = digests.of(raw, promised.partition(":")[0] if promised else "sha256")
        if promised and actual != promised:
            raise digests.DigestMismatch(f"manifest of {self.domain}/{repository}", promised, actual)
        return Fetched(raw=raw, digest=actual, media_type=kind)

    async def size(self, repository: str, digest: str) -> int:
        """Ask how long a blob is. Raises `NotInRegistry`, `RegistryUnavailable`."""
        url = await self._transport.url(repository, f"blobs/{digest}")
        async with self._transport.request("HEAD", repository, url) as answer:
            await expect(answer, self.domain, repository, f"blob {digest} in {repository}", {200})
            if answer.content_length is None:
                raise RegistryUnavailable(self.domain, f"it does not say how long {digest} is")
            return answer.content_length

    async def blob(self, repository: str, descriptor: Descriptor, ingest: Ingest, count: Count) -> None:
        """Fetch a blob into an ingest; where the connection breaks off, go on from the last byte."""
        failures = 0
        while ingest.size < descriptor.size or not ingest.size:
            before = ingest.size
            try:
                await self._blob_once(repository, descriptor, ingest, count)
                return
            except (aiohttp.ClientError, TimeoutError, RegistryUnavailable) as error:
                failures = 0 if ingest.size > before else failures + 1
                if failures >= RESUMES or (isinstance(error, RegistryUnavailable) and ingest.size == 0):
                    raise self._broken(error, descriptor) from error
                await asyncio.sleep(0.2 * 2**failures)

    async def small_blob(self, repository: str, descriptor: Descriptor, limit: int) -> bytes:
        """Fetch a blob of at most `limit` bytes into memory, and verify it."""
        async with self._transport.get(repository, f"blobs/{descriptor.digest}") as answer:
            await expect(answer, self.domain, repository, f"blob {descriptor.digest} in {repository}")
            raw = await body_of(answer, self.domain, limit)
        actual = digests.of(raw, descriptor.digest.partition(":")[0])
        if actual != descriptor.digest:
            raise digests.DigestMismatch(f"blob of {self.domain}/{repository}", descriptor.digest, actual)
        return raw

    async def referrers(self, repository: str, digest: str) -> tuple[Descriptor, ...]:
        """List what refers to a manifest: by the referrers API, or the tag that stands in for it."""
        found, path = list[Descriptor](), f"referrers/{digest}"
        for _ in range(MOST_PAGES):
            async with self._transport.get(repository, path) as answer:
                if answer.status != 200:
                    break
                raw = await body_of(answer, self.domain, manifests.LIMIT)
                found += _listed(raw, f"referrers of {digest}")
                following = _NEXT.search(answer.headers.get("Link", ""))
            if following is None:
                return tuple(found)
            path = f"referrers/{digest}?{following[1]}"
        if found:
            return tuple(found)
        try:
            raw = (await self.manifest(repository, referrer.tag_of(digest))).raw
        except NotInRegistry:
            return ()
        return _listed(raw, f"referrers of {digest}")

    async def _blob_once(self, repository: str, descriptor: Descriptor, ingest: Ingest, count: Count) -> None:
        headers = {"Range": f"bytes={ingest.size}-"} if ingest.size else {}
        async with self._transport.get(repository, f"blobs/{descriptor.digest}", headers) as answer:
            await expect(answer, self.domain, repository, f"blob {descriptor.digest} in {repository}")
            if ingest.size and not _continues(answer, ingest.size):
                await asyncio.to_thread(ingest.restart)
            async for piece in answer.content.iter_any():  # all that came while the last piece was written
                await asyncio.to_thread(ingest.write, piece)
                count(ingest.size)
                while ingest.full:  # noqa: ASYNC110 - who makes room is a thread
                    await asyncio.sleep(PAUSE)
        if ingest.size < descriptor.size:
            raise aiohttp.ClientPayloadError("the connection was closed early")

    def _broken(self, error: Exception, descriptor: Descriptor) -> TrivetError:
        if isinstance(error, TrivetError):
            return error
        problem = str(error) or "it took too long"
        return RegistryUnavailable(
            self.domain, f"{digests.short(descriptor.digest)} broke off again and again: {problem}"
        )


def _listed(raw: bytes, subject: str) -> tuple[Descriptor, ...]:
    parsed = manifests.parse(raw, subject=subject)
    return parsed.manifests if isinstance(parsed, Index) else ()


def _kind(identifier: str) -> str:
    return "digest" if ":" in identifier else "tag"


def _continues(answer: aiohttp.ClientResponse, offset: int) -> bool:
    """Tell whether an answer goes on at `offset`; a registry without ranges begins again."""
    return answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
