"""Passing other registries' images on: below an upstream's prefix what isn't here is fetched, kept and served.

    [[upstream]]
    prefix = "hub"                  localhost:5000/hub/library/debian:12 is docker.io/library/debian:12
    location = "docker.io"
    fresh = 60                      seconds a tag is believed before the upstream is asked again

Only the registries that are named are asked. A redirect or token service of theirs may lead elsewhere in
the world, but not to this machine or a private network (`registry/address`). When an upstream doesn't
answer, what is here is served. Nobody pushes below a prefix.

A manifest is kept before its blobs are here; each comes when somebody wants it, once for all who wait, and
reaches them while it arrives. The last byte waits until the whole was verified.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from typing import BinaryIO

from trivet.base.error import TrivetError
from trivet.oci.descriptor import Descriptor
from trivet.registry.client import RegistryClient
from trivet.registry.error import AccessDenied, LoginRequired, NotInRegistry
from trivet.registry.server.error import Code, Refusal
from trivet.registry.server.metric import Metrics
from trivet.registry.server.policy import PolicyFile, Upstream
from trivet.registry.server.repository import Repositories

log = logging.getLogger(__name__)

BELIEVED = 10_000  # tags whose age is remembered
PIECE = 512 << 10
LOOK = 0.02  # seconds between two looks at a blob that arrives
_MISSING = (NotInRegistry, LoginRequired, AccessDenied)


class Arrival:
    """A blob on its way from an upstream; many may read it."""

    def __init__(self, size: int, file: BinaryIO, task: asyncio.Task[None]) -> None:
        self.size = size
        self._file = file
        self._task = task

    async def pieces(self) -> AsyncIterator[bytes]:
        """Read it while it arrives. Raises what fetching it raises."""
        # a descriptor of our own: the blob's file gets another name and stays the same file
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            sent = 0
            while sent < self.size:
                done = self._task.done()
                if done:
                    await self._task
                there = self.size if done else min(os.fstat(file.fileno()).st_size, self.size - 1)
                if there <= sent:
                    await asyncio.sleep(LOOK)
                    continue
                piece = await asyncio.to_thread(os.pread, file.fileno(), min(PIECE, there - sent), sent)
                sent += len(piece)
                yield piece


class Upstreams:
    """Fetches what is missing from the upstreams of the policy. `close` it."""

    def __init__(self, repositories: Repositories, policy: PolicyFile, metrics: Metrics) -> None:
        self._repositories = repositories
        self._policy = policy
        self._metrics = metrics
        self._asked: dict[tuple[str, str], float] = {}
        self._arrivals: dict[tuple[str, str], asyncio.Future[Arrival]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def of(self, name: str) -> Upstream | None:
        """Tell whose images a repository has."""
        return (await asyncio.to_thread(self._policy.current)).upstream_of(name)

    async def refuse_push(self, name: str) -> None:
        """Refuse content from somebody else. Raises `Refusal`."""
        if upstream := await self.of(name):
            raise Refusal(Code.DENIED, f"{name} has the images of {upstream.location}; nobody pushes there")

    async def manifest(self, name: str, reference: str) -> None:
        """See that a manifest is here and not too old. Does nothing if there is no upstream, or it can't help."""
        upstream, key, now = await self.of(name), (name, reference), time.monotonic()
        if upstream is None:
            return
        fresh = ":" in reference or now - self._asked.get(key, -1e9) < upstream.fresh
        if fresh and await asyncio.to_thread(self._has_manifest, name, reference):
            self._count("here")
            return
        try:
            async with _client(upstream) as client:
                fetched = await client.manifest(_path(upstream, name), reference)
            tags = () if ":" in reference else (reference,)
            kind = fetched.media_type.partition(";")[0].strip()
            put = self._repositories.put
            await asyncio.to_thread(put, name, fetched.raw, kind, fetched.digest, tags, complete=False)
        except TrivetError as error:
            self._count("failed")
            if not isinstance(error, _MISSING):
                log.warning("the upstream of %s does not help: %s", name, error.message)
            return
        self._count("fetched")
        if len(self._asked) >= BELIEVED:
            self._asked.clear()
        self._asked[key] = now

    async def blob(self, name: str, digest: str) -> Arrival | None:
        """Fetch a blob, or join those who do; None if there is no upstream. Raises `Refusal`."""
        upstream = await self.of(name)
        if upstream is None:
            return None
        key = (name, digest)
        if key not in self._arrivals:
            self._arrivals[key] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(self._fetch(upstream, key, self._arrivals[key]))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return await asyncio.shield(self._arrivals[key])

    async def _fetch(self, upstream: Upstream, key: tuple[str, str], begun: asyncio.Future[Arrival]) -> None:
        name, digest = key
        task = asyncio.current_task()
        assert task is not None
        try:
            async with _client(upstream) as client:
                size = await client.size(_path(upstream, name), digest)
                part = Descriptor(media_type="application/octet-stream", digest=digest, size=size)
                with self._repositories.content.ingest(digest, size) as ingest, ingest.path.open("rb") as file:
                    begun.set_result(Arrival(size, file, task))
                    await client.blob(_path(upstream, name), part, ingest, lambda _: None)
                    await asyncio.to_thread(self._repositories.link, name, digest, size)
            self._count("fetched")
        except BaseException as error:
            self._count("failed")
            if not begun.done():
                begun.set_exception(_refusal(name, digest, error))
                return
            raise
        finally:
            self._arrivals.pop(key, None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.warning("a blob did not arrive whole: %s", error)

    def _has_manifest(self, name: str, reference: str) -> bool:
        with contextlib.suppress(Refusal):
            self._repositories.find(name, reference)
            return True
        return False

    def _count(self, source: str) -> None:
        self._metrics.add("upstream_requests_total", source=source)

    async def close(self) -> None:
        """Stop fetching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _client(upstream: Upstream) -> RegistryClient:
    domain = upstream.location.partition("/")[0]
    return RegistryClient(domain, insecure=upstream.insecure, guarded=True)


def _path(upstream: Upstream, name: str) -> str:
    """Tell what the upstream calls a repository."""
    domain, _, above = upstream.location.partition("/")
    rest = name.partition("/")[2]
    if domain == "docker.io" and not above and "/" not in rest:
        rest = f"library/{rest}"
    return f"{above}/{rest}" if above else rest


def _refusal(name: str, digest: str, error: BaseException) -> Refusal:
    if isinstance(error, _MISSING):
        return Refusal(Code.BLOB_UNKNOWN, f"repository {name} has no blob {digest}")
    if isinstance(error, TrivetError):
        log.warning("the upstream of %s does not help: %s", name, error.message)
        return Refusal(Code.BLOB_UNKNOWN, f"the upstream of {name} does not answer", status=502)
    log.error("fetching %s for %s failed: %r", digest, name, error)
    return Refusal(Code.UNKNOWN, "internal error; the registry's log has the details")
