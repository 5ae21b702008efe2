"""Drafts to images: a configuration and a manifest for each platform, and an index over several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import InvalidArgument
from trivet.engine.image import adopt
from trivet.engine.image.commit import Draft
from trivet.engine.image.model import BUILT, ImageRecord, Name
from trivet.oci import config as configs
from trivet.oci import platform as platforms
from trivet.oci import reference as references
from trivet.oci.descriptor import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor
from trivet.oci.manifest import Index, Manifest
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images


def create(
    images: Images, drafts: Sequence[Draft], names: Sequence[str], annotations: Mapping[str, str]
) -> ImageRecord:
    """Store the images of some platforms under common names; the record is that of the one which runs here."""
    names = [str(references.parse(name).tagged()) for name in names]
    with images.leases.hold("creating an image") as lease:
        stored = [_manifest(images, draft, annotations, lease) for draft in drafts]
        manifests = [_store(images, each, draft, lease) for each, draft in zip(stored, drafts, strict=True)]
        chosen = _chosen(drafts)
        own = adopt.Found(manifests[chosen].digest, stored[chosen])
        top = manifests[0].digest if len(manifests) == 1 else store_index(images, manifests, lease)
        record = adopt.describe(images.content, top, own, subject=", ".join(names) or "being built")
        record = msgspec.structs.replace(record, origin=BUILT)
        return images.catalog.add(record, [Name(reference=name, digest=top, manifest=own.digest) for name in names])


def _manifest(images: Images, draft: Draft, annotations: Mapping[str, str], lease: Lease) -> Manifest:
    """Store a draft's configuration, and build its manifest."""
    raw = configs.encode(draft.config)
    config = Descriptor(media_type=OCI_CONFIG, digest=images.content.add(raw, lease=lease), size=len(raw))
    return Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        config=config,
        layers=tuple(layer.descriptor for layer in draft.layers),
        annotations=dict(annotations) or None,
    )


def _store(images: Images, manifest: Manifest, draft: Draft, lease: Lease) -> Descriptor:
    raw = msgspec.json.encode(manifest, order="deterministic")
    digest = images.content.add(raw, lease=lease)
    return Descriptor(media_type=OCI_MANIFEST, digest=digest, size=len(raw), platform=draft.config.platform)


def store_index(images: Images, manifests: Sequence[Descriptor], lease: Lease) -> str:
    """Store an index over manifests; return its digest."""
    index = Index(schema_version=2, media_type=OCI_INDEX, manifests=tuple(manifests))
    return images.content.add(msgspec.json.encode(index, order="deterministic"), lease=lease)


def _chosen(drafts: Sequence[Draft]) -> int:
    """Choose the image that this machine would run, or else the first."""
    if not drafts:
        raise InvalidArgument("an image needs at least one platform")
    fitting = [number for number, draft in enumerate(drafts) if platforms.runs_here(draft.config.platform)]
    return fitting[0] if fitting else 0
