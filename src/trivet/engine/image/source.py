"""Where layers can be had again: those that are kept unpacked only are fetched when their blobs are wanted.

A pull notes the repository whose manifest lists a layer. Whoever opens such a blob (a push, `save`, an export, a
snapshotter) waits until it is here, verified; the next collection may take it again (`release`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import TrivetError, Unavailable
from trivet.client.schema import Progress
from trivet.engine.image.download import download
from trivet.engine.image.progress import Report, silent
from trivet.oci import digest as digests
from trivet.oci import reference as references
from trivet.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from trivet.oci.digest import Digest
from trivet.oci.reference import Reference
from trivet.registry import mirror
from trivet.registry.client import RegistryClient
from trivet.store.content import BlobNotFound

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

MOST = 3  # repositories remembered of a layer


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A layer, and the repositories that have it (docker.io/library/debian), the latest first."""

    id: Digest
    size: int
    repositories: tuple[str, ...]


class LayerAway(Unavailable):
    """A layer that is kept unpacked only, and isn't given again where it came from."""

    def __init__(self, digest: str, repository: str, reason: str) -> None:
        super().__init__(
            f"layer {digests.short(digest)} is kept unpacked only "
            f"and cannot be fetched again from {repository}: {reason}",
            hint="try again when that registry answers, or pull the image from another; "
            "an engine with --layer-blobs keep doesn't depend on it",
        )


class Sources:
    """All that one engine knows of where layers are; `store.elsewhere.Elsewhere` for its content store.

    `loop` is the engine's, for those who ask from a thread; without one, each of them gets its own.
    """

    def __init__(self, images: Images) -> None:
        self._images = images
        self._table = images.records.table("source", Source)
        self.loop: asyncio.AbstractEventLoop | None = None

    def note(self, layers: Iterable[Descriptor], reference: Reference) -> None:
        """Remember that a repository has these layers."""
        with self._images.records.transaction():
            for layer in layers:
                known = self._table.get(layer.digest)
                older = known.repositories if known else ()
                wanted = tuple(dict.fromkeys((reference.name, *older)))[:MOST]
                source = Source(id=layer.digest, size=layer.size, repositories=wanted)
                if source != known:
                    self._table.put(layer.digest, source)

    def get(self, digest: str) -> Source | None:
        """Tell where a layer is."""
        return self._table.get(digest)

    def all(self) -> list[Source]:
        """List all layers that can be had again."""
        return self._table.all()

    def size(self, digest: str) -> int | None:
        """Tell the size of a layer that can be had again; None for all other blobs."""
        source = self._table.get(digest)
        return source.size if source else None

    def forget(self, keep: Collection[str]) -> None:
        """Drop what is known of digests that nothing needs any more."""
        for source in self._table.all():
            if source.id not in keep:
                self._table.delete(source.id)

    def bring(self, digest: str, report: Report = silent) -> None:
        """As `fetch`, for a thread. Raises `BlobNotFound`, `LayerAway`."""
        if self.loop is None or self.loop.is_closed():
            asyncio.run(self.fetch(digest, report))
        else:
            asyncio.run_coroutine_threadsafe(self.fetch(digest, report), self.loop).result()

    async def fetch(self, digest: str, report: Report = silent) -> None:
        """Get a layer's blob, unless it is here, with the credentials and mirrors of now; once, for all who want it.

        Raises `BlobNotFound` where nobody is known to have it, and `LayerAway`.
        """
        images = self._images
        with images.leases.hold(f"fetching layer {digests.short(digest)}") as lease:
            lease.add(digest)
            async with images.fetching.hold(digest, "fetching"):
                if images.content.exists(digest):
                    return
                source = self._table.get(digest)
                if source is None:
                    raise BlobNotFound(digest)
                failures: list[LayerAway] = []
                for repository in source.repositories:
                    try:
                        await self._from(repository, source, report)
                        return
                    except TrivetError as error:
                        failures.append(LayerAway(digest, repository, error.message))
                raise failures[0]

    async def _from(self, repository: str, source: Source, report: Report) -> None:
        """Fetch a layer from the mirrors of a repository, or from itself."""
        layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=source.id, size=source.size)
        reference = references.parse(f"{repository}@{source.id}")
        *mirrors, origin = await asyncio.to_thread(mirror.places, reference)
        short = digests.short(source.id)
        report(Progress(id=short, status=f"fetching again from {repository}", total=source.size))
        for place in (*mirrors, origin):
            try:
                async with RegistryClient(place.domain, insecure=place.insecure) as registry:
                    await download(self._images.partials, registry, place.path, layer, report)
                return
            except TrivetError:
                if place is origin:
                    raise
