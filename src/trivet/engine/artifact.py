"""Artifacts, as the doors call them: files in a registry, beside images or about them. Nothing of them stays here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from trivet.base.error import InvalidArgument
from trivet.client.schema import Progress
from trivet.client.schema_image import Referrer
from trivet.engine.image import artifact, artifact_file
from trivet.engine.image.artifact_file import Files
from trivet.engine.image.progress import Meter, Report, silent
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci import reference as references
from trivet.oci.descriptor import OCI_MANIFEST, Descriptor
from trivet.oci.reference import Reference
from trivet.registry import mirror
from trivet.registry.client import RegistryClient
from trivet.registry.push import Pusher

if TYPE_CHECKING:
    from trivet.engine.engine import Engine


class Artifacts:
    """One method per use case."""

    def __init__(self, engine: Engine) -> None:
        self._images = engine.context.images
        self._events = engine.events

    def check(self, reference: str) -> None:
        """Raise what is wrong with a reference, before a long upload."""
        references.parse(reference)

    async def push(
        self, reference: str, file: BinaryIO, kinds: Sequence[str], about: artifact_file.About, report: Report = silent
    ) -> dict[str, Any]:
        """Send the files of a tar to a registry under a name; `kinds` are their media types, in order."""
        target = references.parse(reference).tagged()
        if target.digest:
            raise InvalidArgument(f"an artifact can't be pushed to {reference}: its digest is what its content gives")
        digest = await self._send(target, target.tag, file, kinds, about, report)
        return {"name": target.familiar, "digest": digest}

    async def attach(
        self, reference: str, file: BinaryIO, kinds: Sequence[str], about: artifact_file.About, report: Report = silent
    ) -> dict[str, Any]:
        """Send the files of a tar to a registry as an artifact about what a name there means."""
        target = references.parse(reference).tagged()
        subject = await self._subject(target)
        digest = await self._send(target, "", file, kinds, about.to(subject), report)
        return {"name": f"{target.name}@{digest}", "digest": digest, "subject": subject.digest}

    @asynccontextmanager
    async def pulled(self, reference: str) -> AsyncIterator[Callable[[BinaryIO], None]]:
        """Fetch an artifact; what is given writes its files as a tar, as long as the block runs."""
        source = references.parse(reference).tagged()
        with self._images.leases.hold(f"pull of artifact {source.familiar}") as lease:
            async with artifact.opened(self._images, source, lease, silent) as found:
                titles = artifact_file.titles(found.manifest, source.familiar)
                for blob in titles.values():
                    await found.blob(blob)
            yield partial(artifact_file.write, self._images.content, titles)
        await asyncio.to_thread(self._images.sweep)

    async def referrers(self, reference: str, kind: str) -> list[Referrer]:
        """List what in a registry refers to what a name there means; with `kind` only artifacts of that type."""
        target = references.parse(reference).tagged()
        place = (await asyncio.to_thread(mirror.places, target))[-1]
        async with RegistryClient(place.domain, insecure=place.insecure) as registry:
            digest = target.digest or (await registry.manifest(place.path, target.identifier)).digest
            found = await registry.referrers(place.path, digest)
        return [_shown(each, digest) for each in found if kind in ("", each.artifact_type)]

    async def _subject(self, target: Reference) -> Descriptor:
        """Ask the registry what a name means."""
        place = (await asyncio.to_thread(mirror.places, target))[-1]
        async with RegistryClient(place.domain, insecure=place.insecure) as registry:
            fetched = await registry.manifest(place.path, target.identifier)
        parsed = manifests.parse(fetched.raw, media_type=fetched.media_type, subject=target.familiar)
        return Descriptor(media_type=manifests.media_type_of(parsed), digest=fetched.digest, size=len(fetched.raw))

    async def _send(
        self,
        target: Reference,
        tag: str,
        file: BinaryIO,
        kinds: Sequence[str],
        about: artifact_file.About,
        report: Report,
    ) -> str:
        """Store, push and forget; return the manifest's digest."""
        content = self._images.content
        with self._images.leases.hold(f"push of artifact {target.familiar}") as lease:
            files: Files = await asyncio.to_thread(artifact_file.read, content, lease, file, kinds)
            config, raw = await asyncio.to_thread(artifact_file.manifest_of, content, lease, files, about)
            place = (await asyncio.to_thread(mirror.places, target))[-1]
            report(Progress(status=f"pushing {target.familiar}"))
            async with Pusher(place.domain, place.path, insecure=place.insecure) as pusher:
                for blob in {each.digest: each for each in (config, *files)}.values():
                    meter = Meter(report, digests.short(blob.digest), blob.size)
                    opened = partial(content.open, blob.digest)
                    way = await pusher.blob(blob, opened, partial(meter.count, "uploading"))
                    report(Progress(id=digests.short(blob.digest), status=str(way), current=blob.size, total=blob.size))
                digest = await pusher.manifest(raw, OCI_MANIFEST, tag or digests.of(raw))
        await asyncio.to_thread(self._images.sweep)
        self._events.emit("image", "push-artifact", digest, target.familiar)
        return digest


def _shown(each: Descriptor, subject: str) -> Referrer:
    annotations: Mapping[str, str] = each.annotations or {}
    return Referrer(
        subject=subject,
        digest=each.digest,
        artifact_type=each.artifact_type or "",
        media_type=each.media_type,
        size=each.size,
        annotations=dict(annotations),
    )
