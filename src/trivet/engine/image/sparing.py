"""Pulling layers that aren't kept as they come: what is unpacked here isn't fetched, and what is fetched doesn't stay.

A large blob passes through: at most `WINDOW` bytes of it are on the disk, between who downloads and who unpacks. A
small one is kept until it is unpacked, so that a pull which is cut goes on at the byte. So many blobs are on their way
at a time that all of it together stays below 64 MB.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from trivet.engine.image import release
from trivet.engine.image.commit import Draft
from trivet.engine.image.download import ingesting
from trivet.engine.image.progress import Meter, Report
from trivet.engine.image.unpack import Coming
from trivet.engine.snapshot.snapshotter import Gradual
from trivet.oci import digest as digests
from trivet.oci.descriptor import Descriptor
from trivet.oci.layer import Layer
from trivet.registry.client import RegistryClient
from trivet.store.growing import Passage
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

WINDOW = 12 << 20
PARALLEL = 3  # blobs on their way, from the first byte until the layer is unpacked


class Sparing:
    """One image that is pulled so. `lease` is the pull's."""

    def __init__(self, images: Images, image: Draft, snapshotter: Gradual, lease: Lease) -> None:
        self._images = images
        self._image = image
        self._snapshotter = snapshotter
        self._lease = lease
        self._piles = Counter(layer.digest for layer in image.layers)  # yet to be unpacked
        self._room = asyncio.Semaphore(PARALLEL)
        self._coming: set[str] = set()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The image's layers."""
        return self._image.layers

    def here(self, digest: str) -> bool:
        """Tell whether a layer is unpacked wherever the image has it, so that its blob isn't wanted."""
        unpacked = self._snapshotter.unpacked(self._image)
        found = [is_here for layer, is_here in zip(self._image.layers, unpacked, strict=True) if layer.digest == digest]
        return bool(found) and all(found)

    async def enter(self, digest: str) -> None:
        """Wait until one more blob may be on its way."""
        if digest in self._piles:
            await self._room.acquire()
            self._coming.add(digest)

    def passes(self, blob: Descriptor) -> bool:
        """Tell whether a blob is to pass through; one that was begun to be kept is continued instead."""
        return self._piles[blob.digest] == 1 and blob.size > WINDOW and not self._images.partials.size(blob.digest)

    async def fetch(
        self, registry: RegistryClient, repository: str, blob: Descriptor, report: Report, coming: Coming
    ) -> None:
        """Let a blob pass through to who unpacks it."""
        meter = Meter(report, digests.short(blob.digest), blob.size)
        async with ingesting(self._images.content.passing(blob.digest, blob.size, WINDOW)) as ingest:
            assert isinstance(ingest.growing, Passage)
            coming.pass_through(ingest.growing)
            await registry.blob(repository, blob, ingest, partial(meter.count, "downloading"))
        await coming.followed.wait()  # until then nobody else can see that it is here

    async def unpacked(self, digest: str) -> None:
        """Delete a layer's blob, unless others want it, when all that the image needs of it is unpacked."""
        self._piles[digest] -= 1
        if not self._piles[digest]:
            await asyncio.to_thread(release.drop, self._images, digest, self._lease)
            if digest in self._coming:
                self._coming.discard(digest)
                self._room.release()


def sparing(images: Images, image: Draft | None, lease: Lease) -> Sparing | None:
    """Prepare to pull an image so, if that is the engine's setting, and the image is one that is unpacked here."""
    if image is None or images.layer_blobs is not release.LayerBlobs.DISCARD:
        return None
    snapshotter = images.unpacks(image)
    return Sparing(images, image, snapshotter, lease) if isinstance(snapshotter, Gradual) else None
