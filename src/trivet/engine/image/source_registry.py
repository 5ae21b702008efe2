"""Pulling: from a registry into the store, in parallel, verified, unpacked, and recorded when all is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from trivet.base.error import Corrupt, Denied, NotFound, TrivetError, Unauthenticated, Unavailable
from trivet.client.schema import Progress
from trivet.engine.disk.model import is_disk
from trivet.engine.image import adopt, attestation
from trivet.engine.image.commit import Draft
from trivet.engine.image.download import download, nobody
from trivet.engine.image.model import ImageRecord, Name, WrongPlatform
from trivet.engine.image.progress import Report
from trivet.engine.image.sparing import Sparing, sparing
from trivet.engine.image.unpack import Coming, nothing, unpack
from trivet.oci import config as configs
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci import platform as platforms
from trivet.oci.config import Image
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Index, Manifest
from trivet.oci.platform import Platform
from trivet.oci.reference import Reference
from trivet.registry import mirror
from trivet.registry.client import RegistryClient
from trivet.registry.mirror import Place
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

PARALLEL = 3
DEEPEST = 4  # indexes in indexes


class More(NamedTuple):
    """What to fetch beside an image: what its index lists for other `platforms`, the `referrers` that tell of it."""

    platforms: bool = False
    referrers: bool = False


NO_MORE = More()


async def pull(
    images: Images, reference: Reference, wanted: Platform, report: Report, more: More = NO_MORE
) -> ImageRecord:
    """Fetch an image for a platform, unpack it as it arrives, and give it its name. Mirrors are asked first.

    What came of one that is refused goes; a pull that broke off is continued by the next one.
    """
    report(Progress(status=f"pulling {reference.familiar}"))
    try:
        return await _pull(images, reference, wanted, report, more)
    except (Unavailable, NotFound, Unauthenticated):
        raise
    except TrivetError:
        await asyncio.to_thread(images.sweep)
        raise


async def _pull(images: Images, reference: Reference, wanted: Platform, report: Report, more: More) -> ImageRecord:
    *mirrors, origin = await asyncio.to_thread(mirror.places, reference)
    for place in mirrors:
        try:
            return await _pull_from(images, place, reference, wanted, report, more)
        except (Unavailable, NotFound, Unauthenticated, Denied, Corrupt) as error:
            report(Progress(status=f"mirror {place.domain} is passed over: {error.message}"))
    return await _pull_from(images, origin, reference, wanted, report, more)


async def _pull_from(
    images: Images, place: Place, reference: Reference, wanted: Platform, report: Report, more: More
) -> ImageRecord:
    subject = reference.familiar
    with images.leases.hold(f"pull of {subject}", resumable=True) as lease:
        async with RegistryClient(place.domain, insecure=place.insecure) as registry:
            fetch = _Fetch(registry, place.path, reference, images, lease, report)
            digest, found = await fetch.manifests(wanted)
            adopt.check_kind(found.manifest, subject=subject)
            await images.trust.admit(registry, place.path, reference, (digest, found.digest))
            if is_disk(found.manifest):
                await fetch.disk(found.manifest)
                return await asyncio.to_thread(_name, images, reference, digest, found)
            image = await fetch.config(found.manifest)
            if not platforms.matches(wanted, image.platform):
                raise WrongPlatform(subject, str(image.platform), str(wanted))
            expected = adopt.record_of(image, found.manifest, digest=digest, chosen=found.digest, subject=subject)
            lease.add(*(layer.digest for layer in found.manifest.layers))
            with images.arriving(draft := Draft(config=image, layers=expected.layers)):
                await asyncio.to_thread(images.sources.note, found.manifest.layers, reference)
                await fetch.layers(found.manifest, draft)
                if more.platforms:
                    await fetch.everything(digest)
                if more.referrers:
                    await fetch.referrers(found.digest)
                return _name(images, reference, digest, found)


def _name(images: Images, reference: Reference, digest: str, found: adopt.Found) -> ImageRecord:
    """Record what is here completely under the name it was asked for by."""
    record = adopt.describe(images.content, digest, found, subject=reference.familiar)
    name = Name(reference=str(reference), digest=digest, manifest=found.digest)
    return images.catalog.add(record, [name])


class _Fetch:
    """What one pull works with."""

    def __init__(
        self,
        registry: RegistryClient,
        repository: str,
        reference: Reference,
        images: Images,
        lease: Lease,
        report: Report,
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._reference = reference
        self._images = images
        self._content = images.content
        self._lease = lease
        self._report = report
        self._slots = asyncio.Semaphore(PARALLEL)
        self._sparing: Sparing | None = None

    async def manifests(self, wanted: Platform) -> tuple[str, adopt.Found]:
        """Fetch what the reference names, and from an index the platform's manifest; tell the digest of both."""
        top, parsed = await self._manifest(self._reference.identifier)
        digest = top
        for _ in range(DEEPEST):
            if isinstance(parsed, Manifest):
                return top, adopt.Found(digest, parsed)
            chosen = adopt.choose(parsed, wanted, subject=self._reference.familiar)
            digest, parsed = await self._manifest(chosen.digest, chosen)
        raise Corrupt(f"image {self._reference.familiar} has indexes nested too deep")

    async def everything(self, digest: str) -> None:
        """Fetch what an index that is here lists, for whatever platform."""
        pending = [(digest, 0)]
        while pending:
            digest, depth = pending.pop()
            if depth > DEEPEST:
                raise Corrupt(f"image {self._reference.familiar} has indexes nested too deep")
            raw = await asyncio.to_thread(self._content.read, digest, limit=manifests.LIMIT)
            parsed = manifests.parse(raw, subject=digest)
            if isinstance(parsed, Index):
                for child in parsed.manifests:
                    await self._manifest(child.digest, child)
                    pending.append((child.digest, depth + 1))
            else:
                await self._blob(parsed.config)
                await self.layers(parsed)

    async def referrers(self, subject: str) -> None:
        """Fetch what is told about a manifest in forms we can show, as far as it is what it says it is."""
        listed = await self._registry.referrers(self._repository, subject)
        known = [each for each in listed if each.artifact_type in attestation.KINDS and each.size <= manifests.LIMIT]
        for each in known[: attestation.MOST]:
            digest, parsed = await self._manifest(each.digest, each)
            if isinstance(parsed, Manifest) and attestation.is_about(parsed, subject):
                for blob in (parsed.config, *parsed.layers):
                    await self._blob(blob)
                await asyncio.to_thread(self._images.attestations.keep, self._images, digest, parsed)

    async def config(self, manifest: Manifest) -> Image:
        """Fetch and read the configuration."""
        subject = self._reference.familiar
        if manifest.config.size > configs.LIMIT:
            raise Corrupt(f"image {subject} has a configuration of {manifest.config.size} bytes")
        await self._blob(manifest.config)
        raw = await asyncio.to_thread(self._content.read, manifest.config.digest, limit=configs.LIMIT)
        return configs.parse(raw, subject=subject)

    async def disk(self, manifest: Manifest) -> None:
        """Fetch all of a disk image; it is put together when it is first used."""
        await self._blob(manifest.config)
        await self.layers(manifest)

    async def layers(self, manifest: Manifest, image: Draft | None = None) -> None:
        """Fetch the layers, each once, a few at a time, and unpack those of `image` as they come.

        The first failure ends all.
        """
        if spared := sparing(self._images, image, self._lease):
            self._sparing = spared
            self._lease.keep(spared.layers)
        coming = {each.digest: self._coming(each) for each in manifest.layers}
        everything = [each.blob for each in coming.values()]
        if image:
            layers = [coming[each.digest] for each in manifest.layers]
            done = spared.unpacked if spared else nothing
            everything.append(asyncio.create_task(unpack(self._images, image, layers, self._report, done)))
        try:
            await asyncio.gather(*everything)
        finally:
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    def _coming(self, layer: Descriptor) -> Coming:
        """Begin to fetch a layer."""
        coming = Coming()
        coming.blob = asyncio.create_task(self._blob(layer, coming))
        coming.blob.add_done_callback(lambda _: coming.begun.set())
        return coming

    async def _manifest(self, identifier: str, promised: Descriptor | None = None) -> tuple[str, Index | Manifest]:
        fetched = await self._registry.manifest(self._repository, identifier)
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

    async def _blob(self, blob: Descriptor, coming: Coming | None = None) -> None:
        """Get a blob unless it is here; pulls that want the same one wait for whoever is at it already.

        Who unpacks it learns by `coming` how far it is.
        """
        short = digests.short(blob.digest)
        self._lease.add(blob.digest)
        if self._images.fetching.action(blob.digest):
            self._report(Progress(id=short, status="waiting for another pull", total=blob.size))
        async with self._images.fetching.hold(blob.digest, "pulling"):
            spared = self._sparing
            if self._content.exists(blob.digest) or (spared and await asyncio.to_thread(spared.here, blob.digest)):
                self._report(Progress(id=short, status="exists", current=blob.size, total=blob.size))
                return
            if spared:
                await spared.enter(blob.digest)
            async with self._slots:
                if spared and coming and spared.passes(blob):
                    await spared.fetch(self._registry, self._repository, blob, self._report, coming)
                else:
                    begun = coming.begun.set if coming else nobody
                    await download(self._images.partials, self._registry, self._repository, blob, self._report, begun)
            self._report(Progress(id=short, status="downloaded", current=blob.size, total=blob.size))
