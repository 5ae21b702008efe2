"""Artifacts of a registry, piece by piece: a manifest, and those of its blobs that somebody wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from trivet.base.error import Corrupt
from trivet.engine.image import adopt
from trivet.engine.image.download import ingesting
from trivet.engine.image.progress import Meter, Report
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci import platform as platforms
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Manifest
from trivet.oci.reference import Reference
from trivet.registry import mirror
from trivet.registry.client import RegistryClient
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images


class Artifact:
    """A manifest in a registry, open for its blobs."""

    def __init__(
        self, images: Images, client: RegistryClient, repository: str, manifest: Manifest, lease: Lease, report: Report
    ) -> None:
        self.manifest = manifest
        self._images = images
        self._client = client
        self._repository = repository
        self._lease = lease
        self._report = report

    async def blob(self, blob: Descriptor) -> None:
        """Get a blob into the store, unless it is there."""
        self._lease.add(blob.digest)
        async with self._images.fetching.hold(blob.digest, "pulling"):
            if self._images.content.exists(blob.digest):
                return
            meter = Meter(self._report, digests.short(blob.digest), blob.size)
            async with ingesting(self._images.partials.ingest(blob.digest, blob.size)) as ingest:
                await self._client.blob(self._repository, blob, ingest, partial(meter.count, "downloading"))

    async def read(self, blob: Descriptor, limit: int) -> bytes:
        """Read a small blob."""
        if blob.size > limit:
            raise Corrupt(f"blob {blob.digest} is larger than {limit} bytes")
        await self.blob(blob)
        return await asyncio.to_thread(self._images.content.read, blob.digest, limit=limit)


@asynccontextmanager
async def opened(images: Images, reference: Reference, lease: Lease, report: Report) -> AsyncIterator[Artifact]:
    """Open what a reference names; of an index, this machine's manifest."""
    place = (await asyncio.to_thread(mirror.places, reference))[-1]
    async with RegistryClient(place.domain, insecure=place.insecure) as client:
        fetched = await client.manifest(place.path, reference.identifier)
        parsed = manifests.parse(fetched.raw, media_type=fetched.media_type, subject=reference.familiar)
        if not isinstance(parsed, Manifest):
            chosen = adopt.choose(parsed, platforms.host(), subject=reference.familiar)
            fetched = await client.manifest(place.path, chosen.digest)
            parsed = manifests.parse(fetched.raw, media_type=fetched.media_type, subject=reference.familiar)
        if not isinstance(parsed, Manifest):
            raise Corrupt(f"{reference.familiar} has indexes nested too deep")
        yield Artifact(images, client, place.path, parsed, lease, report)
