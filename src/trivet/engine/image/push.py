"""Pushing: from the store to a registry, layers in parallel, and a name only when all it needs is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from trivet.client.schema import Progress
from trivet.engine.image.adopt import MissingContent
from trivet.engine.image.model import ImageNotFound, ImageRecord, Name
from trivet.engine.image.progress import Meter, Report
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci import reference as references
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Index
from trivet.oci.reference import Reference
from trivet.registry import mirror
from trivet.registry.push import Pusher, Way
from trivet.store import collect
from trivet.store.content import ContentStore

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

PARALLEL = 3
SOURCES = 5  # other repositories whose rights are asked for, so that blobs may be mounted


class Document(msgspec.Struct, frozen=True):
    """A manifest or index to push, and the blobs it needs."""

    digest: str
    media_type: str
    raw: bytes
    blobs: tuple[Descriptor, ...] = ()


async def push(images: Images, reference: Reference, report: Report, *, every: bool = False) -> str:
    """Send an image to the registry its name says; return the digest the registry has under that name.

    Raises `MissingContent` with `every` if a platform of it isn't here.
    """
    subject = reference.familiar
    record, name = await asyncio.to_thread(_named, images, reference)
    report(Progress(status=f"pushing {subject}"))
    if every:
        await asyncio.to_thread(check_whole, images.content, name.digest, subject)
    documents = await asyncio.to_thread(plan, images.content, name)
    pushed = [document.digest for document in documents]
    for attached in images.attestations.of(*pushed):  # before the top one, which gets the name
        documents.insert(-1, await asyncio.to_thread(_document, images.content, attached.id))
    if documents[-1].digest != name.digest:
        report(Progress(status=f"its other platforms are not here: {record.platform} goes alone"))
    return await send(images, reference, documents, subject, report)


async def send(
    images: Images, reference: Reference, documents: Sequence[Document], subject: str, report: Report
) -> str:
    """Send documents and all they need; the last one gets the reference's tag. Return its digest."""
    with images.leases.hold(f"push of {subject}") as lease:
        blobs = {each.digest: each for document in documents for each in document.blobs}
        lease.add(documents[-1].digest, *blobs)
        _check(images.content, blobs, subject)
        place = (await asyncio.to_thread(mirror.places, reference))[-1]
        sources = await asyncio.to_thread(_sources, images, reference, blobs)
        sources = sources if place.domain == reference.domain else {}
        repositories = list(dict.fromkeys(sources.values()))
        async with Pusher(place.domain, place.path, sources=repositories, insecure=place.insecure) as pusher:
            await _Send(images, pusher, report, sources).blobs(blobs.values())
            for document in documents[:-1]:
                await pusher.manifest(document.raw, document.media_type, document.digest)
            top = documents[-1]
            return await pusher.named(top.raw, top.media_type, top.digest, reference.tag)


def _named(images: Images, reference: Reference) -> tuple[ImageRecord, Name]:
    hint = f"give it the name to push first: trivet tag IMAGE {reference.familiar}"
    try:
        record, name = images.catalog.find(str(reference))
    except ImageNotFound:
        raise ImageNotFound(reference.familiar, hint=hint) from None
    if name is None:
        raise ImageNotFound(reference.familiar, hint=hint)
    return record, name


def plan(content: ContentStore, name: Name) -> list[Document]:
    """List the documents to push, each after those it refers to.

    An index goes whole if every manifest in it is here; otherwise this platform's manifest goes alone,
    because no registry takes an index with holes.
    """
    return _documents(content, name.digest) or _documents(content, name.manifest) or [_document(content, name.manifest)]


def check_whole(content: ContentStore, digest: str, subject: str) -> list[str]:
    """List everything an image consists of, of whatever platform, top first. Raises `MissingContent`."""
    found, pending = dict[str, None](), [digest]
    while pending:
        digest = pending.pop(0)
        if not content.has(digest):
            hint = f"get all of it: trivet pull --all-platforms {subject}"
            raise MissingContent(subject, digest, hint=hint)
        if digest not in found:
            found[digest] = None
            pending += collect.children(content, digest)
    return list(found)


def _documents(content: ContentStore, digest: str, depth: int = 0) -> list[Document]:
    """Walk down from a document; nothing if a part of it isn't here."""
    if depth > 4 or not content.exists(digest):
        return []
    document = _document(content, digest)
    parsed = manifests.parse(document.raw, subject=digest)
    below: list[Document] = []
    for child in parsed.manifests if isinstance(parsed, Index) else ():
        found = _documents(content, child.digest, depth + 1)
        if not found:
            return []
        below += [each for each in found if each not in below]
    complete = all(content.has(each.digest) for each in document.blobs)
    return [*below, document] if complete else []


def _document(content: ContentStore, digest: str) -> Document:
    raw = content.read(digest, limit=manifests.LIMIT)
    parsed = manifests.parse(raw, subject=digest)
    blobs = () if isinstance(parsed, Index) else (parsed.config, *parsed.layers)
    return Document(digest, manifests.media_type_of(parsed), raw, blobs)


def _check(content: ContentStore, blobs: Iterable[str], subject: str) -> None:
    for digest in blobs:
        if not content.has(digest):
            raise MissingContent(subject, digest)


def _sources(images: Images, target: Reference, blobs: Iterable[str]) -> dict[str, str]:
    """Guess which blobs the registry has in other repositories: what came from there, what carries its name here."""
    wanted, found = set(blobs), dict[str, str]()
    for digest in blobs:
        source = images.sources.get(digest)
        for place in map(references.parse, source.repositories if source else ()):
            if (
                place.domain == target.domain
                and place.path != target.path
                and len({*found.values(), place.path}) < SOURCES
            ):
                found[digest] = place.path
    for record in images.list():
        for name in map(references.parse, (each.reference for each in record.names)):
            if name.domain == target.domain and name.path != target.path and len(set(found.values())) < SOURCES:
                shared = wanted & {record.id, *(layer.digest for layer in record.layers)}
                found.update(dict.fromkeys(shared - found.keys(), name.path))
    return found


class _Send:
    """The blobs of one push."""

    def __init__(self, images: Images, pusher: Pusher, report: Report, sources: dict[str, str]) -> None:
        self._images = images
        self._pusher = pusher
        self._report = report
        self._sources = sources
        self._slots = asyncio.Semaphore(PARALLEL)

    async def blobs(self, blobs: Iterable[Descriptor]) -> None:
        """Send all, a few at a time. The first failure ends the others."""
        tasks = [asyncio.create_task(self._blob(each)) for each in blobs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _blob(self, blob: Descriptor) -> None:
        short = digests.short(blob.digest)
        async with self._slots:
            meter = Meter(self._report, short, blob.size)
            way: Way = await self._pusher.blob(
                blob,
                partial(self._images.opened, blob.digest, self._report),
                partial(meter.count, "uploading"),
                self._sources.get(blob.digest, ""),
            )
        self._report(Progress(id=short, status=str(way), current=blob.size, total=blob.size))
