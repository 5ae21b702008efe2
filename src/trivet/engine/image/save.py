"""Images as a tar: an OCI layout holding the very bytes of the store, so that digests survive the journey.

oci-layout, index.json                one descriptor per name
manifest.json                         form `docker` only: what `docker load` reads
blobs/sha256/<digits> …               indexes, manifests, configurations, layers
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from trivet.base.error import InvalidArgument
from trivet.engine.image.adopt import MissingContent
from trivet.engine.image.model import ImageRecord, Name
from trivet.engine.image.push import check_whole
from trivet.engine.snapshot.pack import CHUNK, Packer, Write
from trivet.oci import layout
from trivet.oci import manifest as manifests
from trivet.oci import reference as references
from trivet.oci.descriptor import OCI_INDEX, Descriptor
from trivet.oci.manifest import Index
from trivet.store.content import ContentStore

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

FORMS = ("docker", "oci")


class Writable(Protocol):
    """Anything bytes can be written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


def save(images: Images, names: Sequence[str], write: Write, form: str, *, every: bool = False) -> None:
    """Write images; everything is found, checked and fetched before the first byte.

    Raises `ImageNotFound`, `MissingContent`, `LayerAway`.
    """
    if form not in FORMS:
        raise InvalidArgument(f"unknown archive format {form!r}", hint=f"use one of {', '.join(FORMS)}")
    found = [images.catalog.find(name) for name in names]
    with images.leases.hold("saving images") as lease:
        blobs = dict.fromkeys(
            digest for record, name in found for digest in _closure(images.content, record, name, every)
        )
        lease.add(*blobs)
        _check(images.content, blobs, names)
        for digest in blobs:  # once something was sent nobody can be told why it breaks off
            images.opened(digest).close()
        packer = Packer(write)
        _member(packer, layout.MARKER, layout.MARKER_CONTENT)
        _member(packer, layout.INDEX, _index(images.content, found))
        if form == "docker":
            _member(packer, "manifest.json", _docker_manifest(found))
        for digest in blobs:
            _blob(packer, images.content, digest)
        packer.finish()


def _closure(content: ContentStore, record: ImageRecord, name: Name | None, every: bool) -> list[str]:
    """List an image's blobs in the order a reader wants them; unless `every`, other platforms' stay out."""
    digest, chosen = (name.digest, name.manifest) if name else (record.digest, record.manifest)
    if every:
        return check_whole(content, digest, name.familiar if name else record.id)
    raw = content.read(chosen, limit=manifests.LIMIT)
    manifest = manifests.parse(raw, subject=chosen)
    assert not isinstance(manifest, Index)
    return [digest, chosen, manifest.config.digest, *(layer.digest for layer in manifest.layers)]


def _check(content: ContentStore, blobs: dict[str, None], names: Sequence[str]) -> None:
    for digest in blobs:
        if not content.has(digest):
            raise MissingContent(", ".join(names), digest)


def _index(content: ContentStore, found: list[tuple[ImageRecord, Name | None]]) -> bytes:
    descriptors = []
    for record, name in found:
        digest = name.digest if name else record.digest
        raw = content.read(digest, limit=manifests.LIMIT)
        kind = manifests.media_type_of(manifests.parse(raw, subject=digest))
        annotations = _annotations(name) if name else None
        descriptors.append(Descriptor(media_type=kind, digest=digest, size=len(raw), annotations=annotations))
    index = Index(schema_version=2, media_type=OCI_INDEX, manifests=tuple(descriptors))
    return msgspec.json.encode(index, order="deterministic")


def _annotations(name: Name) -> dict[str, str]:
    tag = references.parse(name.reference).identifier
    return {layout.IMAGE_NAME: name.reference, layout.REFERENCE_NAME: tag}


def _docker_manifest(found: list[tuple[ImageRecord, Name | None]]) -> bytes:
    rows: dict[str, dict[str, Any]] = {}
    for record, name in found:
        if record.disk:  # `docker load` could do nothing with it
            continue
        layers = [str(layout.blob(layer.digest)) for layer in record.layers]
        fresh = {"Config": str(layout.blob(record.id)), "RepoTags": [], "Layers": layers}
        row = rows.setdefault(record.id, fresh)
        if name and "@" not in name.reference and name.familiar not in row["RepoTags"]:
            row["RepoTags"].append(name.familiar)
    return msgspec.json.encode(list(rows.values()))


def _member(packer: Packer, name: str, data: bytes) -> None:
    packer.file(name, len(data))
    packer.data(data)


def _blob(packer: Packer, content: ContentStore, digest: str) -> None:
    with content.open(digest) as file:
        size = os.fstat(file.fileno()).st_size
        packer.file(str(layout.blob(digest)), size)
        while piece := file.read(CHUNK):
            packer.write(piece)
    packer.pad(size)
