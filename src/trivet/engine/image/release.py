"""Freeing the blobs of layers that are unpacked here and can be fetched again (`source`)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from trivet.client.schema import Removed
from trivet.engine.image.model import ImageRecord
from trivet.engine.snapshot.snapshotter import Gradual
from trivet.oci import digest as digests
from trivet.store import collect
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images


class LayerBlobs(StrEnum):
    """What becomes of a layer's blob once it is unpacked and a registry is known to have it."""

    KEEP = "keep"
    DISCARD = "discard"


class Released(msgspec.Struct, frozen=True):
    """A layer whose blob was deleted, or would be; `repository` has it."""

    digest: str
    size: int
    repository: str


def release(images: Images, *, dry_run: bool = False) -> list[Released]:
    """Delete the blobs of layers that all images here have unpacked, nobody is using, and can be had again."""
    with images.records.transaction():
        needed, unpacked = _needed(images), _unpacked(images)
        going = [
            Released(source.id, images.content.size(source.id), source.repositories[0])
            for source in images.sources.all()
            if source.id in unpacked and source.id not in needed and images.content.exists(source.id)
        ]
        for each in going if not dry_run else ():
            images.content.delete(each.digest)
    return going


def drop(images: Images, digest: str, own: Lease) -> None:
    """Delete the blob of a layer that a pull has unpacked, unless somebody else wants it; `own` is the pull's lease."""
    with images.records.transaction():
        if digest not in _needed(images, own.id):
            images.content.delete(digest)


def removed(released: list[Released]) -> Removed:
    """Tell what was released as people are told."""
    deleted = [f"blob of layer {digests.short(each.digest)}, which {each.repository} has" for each in released]
    return Removed(deleted=deleted, freed=sum(each.size for each in released))


def _needed(images: Images, own: str = "") -> set[str]:
    """List what must stay as it is: for whoever works with it, for other holders, of images that aren't unpacked.

    The lease `own` doesn't count.
    """
    leases = [lease for lease in images.leases.all() if not lease.broken and lease.id != own]
    found = {digest for lease in leases for digest in lease.digests}
    for holder in images.holders:
        found |= {root.digest for root in holder()}
    for record in images.catalog.all():
        if not _is_unpacked(images, record):
            found |= set(_layers(images, record))
    return found


def _unpacked(images: Images) -> set[str]:
    records = [record for record in images.catalog.all() if _is_unpacked(images, record)]
    return {digest for record in records for digest in _layers(images, record)}


def _is_unpacked(images: Images, record: ImageRecord) -> bool:
    snapshotter = images.unpacks(record)
    return isinstance(snapshotter, Gradual) and all(snapshotter.unpacked(record))


def _layers(images: Images, record: ImageRecord) -> Iterator[str]:
    """List an image's layers as each of its manifests has them: compressed otherwise, they are other blobs."""
    yield from (layer.digest for layer in record.layers)
    for manifest in {record.manifest, *(name.manifest for name in record.names)}:
        yield from collect.children(images.content, manifest)
