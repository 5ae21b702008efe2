"""Pulling: from a registry into the store, in parallel, verified, and recorded when all is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from trivet.base.error import Corrupt
from trivet.client.schema import Progress
from trivet.engine.image import adopt
from trivet.engine.image.model import ImageRecord, Name, WrongPlatform
from trivet.engine.image.progress import Meter, Report
from trivet.oci import config as configs
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci import platform as platforms
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Index, Manifest
from trivet.oci.platform import Platform
from trivet.oci.reference import Reference
from trivet.registry.client import RegistryClient
from trivet.store.content import ContentStore, Ingest
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

PARALLEL = 3


async def pull(images: Images, reference: Reference, wanted: Platform, report: Report) -> ImageRecord:
    """Fetch an image for a platform and give it its name."""
    report(Progress(status=f"pulling {reference.familiar}"))
    with images.leases.hold(f"pull of {reference.familiar}") as lease:
        async with RegistryClient(reference.domain) as registry:
            fetch = _Fetch(registry, reference, images.content, lease, report)
            digest, found = await fetch.manifests(wanted)
            adopt.check_kind(found.manifest, subject=reference.familiar)
            await fetch.blobs(found.manifest)
        record, image = adopt.describe(images.content, digest, found, subject=reference.familiar)
        if not platforms.matches(wanted, image.platform):
            raise WrongPlatform(reference.familiar, str(image.platform), str(wanted))
        name = Name(reference=str(reference), digest=digest, manifest=found.digest)
        return images.catalog.add(record, [name])


class _Fetch:
    """What one pull works with."""

    def __init__(
        self, registry: RegistryClient, reference: Reference, content: ContentStore, lease: Lease, report: Report
    ) -> None:
        self._registry = registry
        self._reference = reference
        self._content = content
        self._lease = lease
        self._report = report
        self._slots = asyncio.Semaphore(PARALLEL)

    async def manifests(self, wanted: Platform) -> tuple[str, adopt.Found]:
        """Fetch what the reference names, and from an index the platform's manifest; tell the digest of both."""
        top, parsed = await self._manifest(self._reference.identifier)
        digest = top
        for _ in range(4):
            if isinstance(parsed, Manifest):
                return top, adopt.Found(digest, parsed)
            chosen = adopt.choose(parsed, wanted, subject=self._reference.familiar)
            digest, parsed = await self._manifest(chosen.digest, chosen)
        raise Corrupt(f"image {self._reference.familiar} has indexes nested too deep")

    async def blobs(self, manifest: Manifest) -> None:
        """Fetch configuration and layers, each once, a few at a time; the first failure ends the others."""
        if manifest.config.size > configs.LIMIT:
            raise Corrupt(f"image {self._reference.familiar} has a configuration of {manifest.config.size} bytes")
        wanted = {each.digest: each for each in (manifest.config, *manifest.layers)}
        tasks = [asyncio.create_task(self._blob(each)) for each in wanted.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _manifest(self, identifier: str, promised: Descriptor | None = None) -> tuple[str, Index | Manifest]:
        fetched = await self._registry.manifest(self._reference.path, identifier)
        subject = self._reference.familiar
        if promised and len(fetched.raw) != promised.size:
            raise Corrupt(f"manifest {identifier} of {subject} does not have the size its index says")
        told = promised.media_type if promised else fetched.media_type
        if told.partition(";")[0].strip() in ("application/json", "application/octet-stream", "text/plain"):
            told = ""
        parsed = manifests.parse(fetched.raw, media_type=told, subject=subject)
        self._lease.add(fetched.digest)
        await asyncio.to_thread(self._content.add, fetched.raw, fetched.digest)
        return fetched.digest, parsed

    async def _blob(self, descriptor: Descriptor) -> None:
        short = digests.short(descriptor.digest)
        self._lease.add(descriptor.digest)
        if self._content.exists(descriptor.digest):
            self._report(Progress(id=short, status="exists", current=descriptor.size, total=descriptor.size))
            return
        async with self._slots:
            meter = Meter(self._report, short, descriptor.size)
            async with _ingesting(self._content, descriptor) as ingest:
                await self._registry.blob(
                    self._reference.path, descriptor, ingest, lambda size: meter.count("downloading", size)
                )
            self._report(Progress(id=short, status="downloaded", current=descriptor.size, total=descriptor.size))


@asynccontextmanager
async def _ingesting(content: ContentStore, descriptor: Descriptor) -> AsyncIterator[Ingest]:
    """Ingest without holding the event loop up while the disk syncs."""
    manager = content.ingest(descriptor.digest, descriptor.size)
    ingest = await asyncio.to_thread(manager.__enter__)
    try:
        yield ingest
    except BaseException as error:
        await asyncio.to_thread(manager.__exit__, type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(manager.__exit__, None, None, None)
