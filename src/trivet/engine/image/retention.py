"""What of the images may go, what must stay, and what is broken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import Conflict, TrivetError
from trivet.client.schema import Removed
from trivet.client.schema_host import Finding, Usage
from trivet.engine.image import detail, release
from trivet.engine.image.model import ImageInUse, ImageRecord
from trivet.engine.image.release import LayerBlobs
from trivet.engine.snapshot.snapshotter import Layered
from trivet.store import collect
from trivet.store.collect import Root
from trivet.store.content import BlobNotFound

if TYPE_CHECKING:
    from trivet.engine.image.image import Images


def nothing() -> None:
    """Forget nothing."""


def roots(images: Images) -> list[Root]:
    """List everything that keeps content: images under each of their names, leases, other holders."""
    found: list[Root] = []
    for record in images.catalog.all():
        label = f"image {detail.title(record)}"
        digests = {record.id, record.digest, record.manifest, *(layer.digest for layer in record.layers)}
        digests |= _digests(images, record)
        found += [Root(label, digest) for digest in sorted(digests)]
    kept = {root.digest for root in found}
    found += [Root(f"attestation of {each.subject}", each.id) for each in images.attestations.of(*kept)]
    for lease in images.leases.all():
        found += [Root(f"lease {lease.purpose}", digest) for digest in lease.digests]
    for holder in images.holders:
        found += holder()
    return found


def remove(images: Images, ref: str, force: bool) -> Removed:
    """Take a name from an image, and delete the image with its last one.

    By id, all its names go, if there is at most one or with `force`. An image that instances need stays,
    nameless with `force`. Raises `ImageInUse`, `Conflict`, `ImageNotFound`.
    """
    with images.records.transaction():
        record, name = images.catalog.find(ref)
        if name is None and len(record.names) > 1 and not force:
            raise Conflict(
                f"cannot remove image {ref}: it has the names {', '.join(detail.names(record))}",
                hint=f"trivet rmi --force {ref} removes all of them",
            )
        going = [name] if name else list(record.names)
        last = len(going) == len(record.names)
        users = list(images.users(record.id)) if last else []
        if users and not force:
            raise ImageInUse(ref, users)
        images.catalog.untag(record.id, [each.reference for each in going])
        if last and not users:
            images.catalog.delete(record.id)
    freed = sweep(images)
    deleted = [record.id] if last and not users else []
    return Removed(untagged=[each.familiar for each in going], deleted=deleted, freed=freed)


def prune(
    images: Images,
    *,
    every: bool,
    dry_run: bool,
    first: Callable[[], object],
    without: Collection[str] = (),
    layer_blobs: bool = False,
) -> Removed:
    """Delete unused images, then all content and snapshots that nothing needs any more; see `Images.prune`."""
    try:
        with images.records.transaction():
            first()
            going = [
                record for record in images.catalog.all() if (every or not record.names) and not images.users(record.id)
            ]
            for record in going:
                images.catalog.delete(record.id)
            images.leases.drop_broken()
            names = [name for record in going for name in detail.names(record)]
            removed = Removed(untagged=names, deleted=[record.id for record in going])
            if dry_run:
                more = images.partials.drop(dry_run=True) + images.disks.bases.prune(_running(images), dry_run=True)
                blobs = release.removed(release.release(images, dry_run=True) if layer_blobs else [])
                raise _Rehearsed(_garbage(images, without) + more, blobs)
    except _Rehearsed as end:
        return _sum(removed, end.freed, end.blobs)
    freed = sweep(images) + images.partials.drop() + images.disks.bases.prune(_running(images))
    return _sum(removed, freed, release.removed(release.release(images) if layer_blobs else []))


def _sum(removed: Removed, freed: int, blobs: Removed) -> Removed:
    return msgspec.structs.replace(removed, deleted=[*removed.deleted, *blobs.deleted], freed=freed + blobs.freed)


def sweep(images: Images, *, dry_run: bool = False, first: Callable[[], object] = nothing) -> int:
    """Collect garbage: blobs no root reaches, snapshots no image has. Return the bytes freed.

    `first` makes some of it garbage, by forgetting records; a dry run takes that back.
    """
    if dry_run:
        try:
            with images.records.transaction():
                first()
                raise _Rehearsed(_garbage(images))
        except _Rehearsed as end:
            return end.freed
    with images.records.transaction():
        first()
        freed = collect.collect(images.content, roots(images)).freed
    known = {digest for record in images.catalog.all() for digest in _digests(images, record)}
    images.trust.forget(known)
    images.attestations.forget(known)
    images.sources.forget(known | {digest for lease in images.leases.all() for digest in lease.digests})
    if images.layer_blobs is LayerBlobs.DISCARD:
        freed += sum(each.size for each in release.release(images))
    bases = images.disks.bases.prune([record.id for record in images.catalog.all() if record.disk])
    return freed + bases + sum(snapshotter.prune(_needed(images)) for snapshotter in images.snapshotters.values())


def _digests(images: Images, record: ImageRecord) -> set[str]:
    """List the digests that an image's manifests and indexes have, of other platforms too."""
    found = {record.digest, record.manifest, *(each for name in record.names for each in (name.digest, name.manifest))}
    return found | {child for digest in found for child in collect.children(images.content, digest)}


def usage(images: Images) -> Usage:
    """Add up layers as they are stored, if they are, each once however many images share it."""
    records = images.catalog.all()
    used = [record for record in records if images.users(record.id)]
    sizes = {
        layer.digest: layer.size for record in records for layer in record.layers if images.content.exists(layer.digest)
    }
    needed = {layer.digest for record in used for layer in record.layers}
    return Usage(
        kind="images",
        total=len(records),
        active=len(used),
        size=sum(sizes.values()),
        reclaimable=sum(size for digest, size in sizes.items() if digest not in needed),
    )


def usage_of_layers(images: Images) -> Usage:
    """Measure what images are unpacked to, each layer once; an image's drive for machines is one, too."""
    records = [record for record in images.catalog.all() if not record.disk]
    used = [record for record in records if images.users(record.id)]
    snapshotters = images.snapshotters.values()
    return Usage(
        kind="image layers",
        total=len({layer.diff_id for record in records for layer in record.layers}),
        active=len({layer.diff_id for record in used for layer in record.layers}),
        size=sum(each.prune((), dry_run=True, without=each.instances()) for each in snapshotters),
        reclaimable=sum(each.prune([*used, *_unpacked(images)], dry_run=True) for each in snapshotters),
    )


def usage_of_disks(images: Images) -> Usage:
    """Measure the disk images that are files for machines, beside being stored in chunks."""
    return images.disks.bases.usage(_running(images))


def check(images: Images, repair: bool) -> list[Finding]:
    """Read every blob that images need; find what is missing or damaged, and what is left over."""
    findings = []
    for record in images.catalog.all():
        problem = _problem(images, record)
        if problem:
            if repair:
                _drop(images, record)
            again = f"trivet pull {detail.title(record)}" if record.names else "remove the image"
            findings.append(
                Finding(object=f"image {detail.title(record)}", problem=problem, repair=again, repaired=repair)
            )
    with images.records.transaction():
        garbage = collect.collect(images.content, roots(images), dry_run=not repair)
    if garbage.digests:
        what = f"{len(garbage.digests)} blobs ({garbage.freed} bytes) belong to nothing"
        findings.append(Finding(object="content store", problem=what, repair="delete them", repaired=repair))
    return findings


def _problem(images: Images, record: ImageRecord) -> str:
    for digest in dict.fromkeys((record.id, record.manifest, *(layer.digest for layer in record.layers))):
        try:
            images.content.verify(digest)
        except BlobNotFound as error:
            if not images.sources.get(digest):
                return error.message
        except TrivetError as error:
            return error.message
    return ""


def _drop(images: Images, record: ImageRecord) -> None:
    """Delete the damaged blobs, so that the next pull fetches them; the record goes too unless instances need it."""
    for digest in (record.id, record.manifest, *(layer.digest for layer in record.layers)):
        try:
            images.content.verify(digest)
        except TrivetError:
            images.content.delete(digest)
    if not images.users(record.id):
        images.catalog.delete(record.id)


def _running(images: Images) -> list[str]:
    """List the disk images that machines are made of; the others' bases can be made again."""
    return [record.id for record in images.catalog.all() if record.disk and images.users(record.id)]


def _needed(images: Images) -> Iterator[Layered]:
    """Yield what must stay unpacked, as it is when the first is asked for."""
    yield from [*images.catalog.all(), *_unpacked(images)]


def _unpacked(images: Images) -> Iterator[Layered]:
    yield from images.leases.all()
    for source in images.unpacked:
        yield from source()


def _garbage(images: Images, without: Collection[str] = ()) -> int:
    """Measure what a collection would free now, or if the instances `without` were gone."""
    freed = collect.collect(images.content, roots(images), dry_run=True).freed
    snapshotters = images.snapshotters.values()
    return freed + sum(each.prune(_needed(images), dry_run=True, without=without) for each in snapshotters)


class _Rehearsed(Exception):
    """Takes a transaction back, of which only what it would have freed was to be known."""

    def __init__(self, freed: int, blobs: Removed | None = None) -> None:
        self.freed = freed
        self.blobs = blobs or Removed()
