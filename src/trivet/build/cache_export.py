"""`--cache-to`: the steps of a build, and what its cache mounts hold, to a registry, a directory, or into the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from trivet.base.thread import in_thread
from trivet.build import cache_document
from trivet.build.cache_document import ANNOTATION, DOCUMENT, MOUNT, Document, Entry
from trivet.build.output import send_file
from trivet.build.session import Session
from trivet.client.schema import Progress
from trivet.client.schema_build import CacheTo
from trivet.engine.image import push
from trivet.engine.snapshot.diff import LayerWriter
from trivet.engine.snapshot.pack import CHUNK, Packer
from trivet.engine.snapshot.walk import changes
from trivet.oci import layout
from trivet.oci import reference as references
from trivet.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from trivet.oci.manifest import Index


async def export(sessions: Sequence[Session]) -> None:
    """Write the caches that the request asks for, but those that go into the image."""
    session = sessions[0]
    for number, wish in enumerate(session.request.cache_to):
        if wish.kind == "inline":
            continue
        session.report(Progress(id="[cache]", status=f"exporting the cache to {wish.place}"))
        document = await in_thread(_document, sessions, wish)
        manifest = await in_thread(_store, session, document)
        async with session.tools.images.releasing():
            await _send(session, wish, manifest, f"cache:{number}")
        session.report(Progress(id="[cache]", status=f"exporting the cache to {wish.place} · done"))


async def _send(session: Session, wish: CacheTo, manifest: push.Document, name: str) -> None:
    if wish.kind == "registry":
        reference = references.parse(wish.place).tagged()
        await push.send(session.tools.images, reference, [manifest], reference.familiar, session.report)
        return
    with session.scratch_file() as file:
        await in_thread(_write_layout, session, manifest, file)
        await send_file(session, name, file)


def inlined(sessions: Sequence[Session]) -> dict[str, str]:
    """Give what the image's manifest says about its own cache, if it is to."""
    wish = next((wish for wish in sessions[0].request.cache_to if wish.kind == "inline"), None)
    if wish is None:
        return {}
    plain = msgspec.structs.replace(wish, whole=False, mounts=False)
    return {ANNOTATION: _document(sessions, plain).encode().decode()}


def _document(sessions: Sequence[Session], wish: CacheTo) -> Document:
    """Gather the steps: all of the build, or those of the target and what it goes on from."""
    entries: dict[str, Entry] = {}
    mounts: dict[str, Descriptor] = {}
    for session in sessions:
        for key, stage in session.steps.items():
            found = session.tools.cache.find(key, session.lease)
            if found and (wish.whole or stage in _lineage(session)):
                entries[key] = Entry(key=key, layer=found.layer, time=found.time)
        if wish.mounts:
            here = {path.name for path in session.tools.cache.kept.directories()}
            mounts |= {name: _pack(session, name) for name in sorted(session.mounts & here)}
    return Document(entries=tuple(entries[key] for key in sorted(entries)), mounts=mounts)


def _lineage(session: Session) -> set[int]:
    """Number the target and the stages it goes on from."""
    stage = session.graph.target(session.request.target)
    found = {stage.index}
    while stage.parent is not None:
        stage = session.graph.stages[stage.parent]
        found.add(stage.index)
    return found


def _pack(session: Session, name: str) -> Descriptor:
    """Store a kept directory as an archive."""
    directory = session.tools.cache.kept.directory / name
    with session.tools.images.content.ingest(lease=session.lease) as ingest:
        writer = LayerWriter(ingest)
        packer = Packer(writer.write)
        packer.tree(changes(directory))
        packer.finish()
        writer.finish()
    layer = writer.layer()
    return Descriptor(media_type=MOUNT, digest=layer.digest, size=layer.size)


def _store(session: Session, document: Document) -> push.Document:
    content, raw = session.tools.images.content, document.encode()
    config = Descriptor(media_type=DOCUMENT, digest=content.add(raw, lease=session.lease), size=len(raw))
    manifest = cache_document.manifest_of(document, config)
    packed = msgspec.json.encode(manifest, order="deterministic")
    digest = content.add(packed, lease=session.lease)
    return push.Document(digest, OCI_MANIFEST, packed, (config, *manifest.layers))


def _write_layout(session: Session, manifest: push.Document, file: BinaryIO) -> None:
    """Write an OCI layout as a tar."""
    packer = Packer(file.write)
    top = Descriptor(media_type=OCI_MANIFEST, digest=manifest.digest, size=len(manifest.raw))
    index = Index(schema_version=2, media_type=OCI_INDEX, manifests=(top,))
    for name, data in ((layout.MARKER, layout.MARKER_CONTENT), (layout.INDEX, msgspec.json.encode(index))):
        packer.file(name, len(data))
        packer.data(data)
    for digest in (manifest.digest, *(blob.digest for blob in manifest.blobs)):
        packer.file(str(layout.blob(digest)), session.tools.images.content.size(digest))
        with session.tools.images.content.open(digest) as source:
            while piece := source.read(CHUNK):
                packer.write(piece)
        packer.pad(session.tools.images.content.size(digest))
    packer.finish()
