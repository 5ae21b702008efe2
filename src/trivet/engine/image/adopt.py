"""From content in the store to an image record: everything is checked before the image has a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trivet.base.clock import now_ns, rfc3339
from trivet.base.error import Corrupt, Unsupported
from trivet.engine.disk import index, model
from trivet.engine.image.model import ImageRecord, WrongPlatform
from trivet.oci import config as configs
from trivet.oci import manifest as manifests
from trivet.oci import platform as platforms
from trivet.oci.config import Image
from trivet.oci.descriptor import CONFIGS, Descriptor
from trivet.oci.layer import Layer
from trivet.oci.manifest import Index, Manifest
from trivet.oci.platform import Platform
from trivet.store.content import ContentStore


class NotAnImage(Unsupported):
    """An artifact: a manifest whose configuration isn't an image's."""

    def __init__(self, subject: str, kind: str) -> None:
        super().__init__(f"{subject} is not an image but an artifact of type {kind}")


class MissingContent(Corrupt):
    """An image that lacks a part."""

    def __init__(self, subject: str, digest: str, *, hint: str | None = None) -> None:
        super().__init__(f"image {subject} is incomplete: {digest} is missing", hint=hint)


class Found(NamedTuple):
    """A manifest chosen and read."""

    digest: str
    manifest: Manifest


def choose(index: Index, wanted: Platform, *, subject: str) -> Descriptor:
    """Choose the manifest for a platform from an index. Raises `WrongPlatform` naming what there is."""
    offers = [(each.platform, each) for each in index.manifests]
    chosen = platforms.choose(wanted, offers)
    if chosen is not None:
        return chosen
    anonymous = [each for each in index.manifests if each.platform is None]
    if len(index.manifests) == len(anonymous) == 1:
        return anonymous[0]
    offered = sorted({str(each.platform) for each in index.manifests if _is_real(each.platform)})
    raise WrongPlatform(subject, ", ".join(offered) or "no platform at all", str(wanted))


def resolve(
    content: ContentStore, digest: str, wanted: Platform, *, subject: str, fits: Callable[[str], bool] | None = None
) -> Found:
    """Follow a digest in the store through indexes to the manifest for a platform.

    `fits` may restrict the choice in an index, e.g. to manifests that are here.
    """
    for _ in range(4):
        raw = content.read(digest, limit=manifests.LIMIT)
        parsed = manifests.parse(raw, subject=subject)
        if isinstance(parsed, Manifest):
            return Found(digest, parsed)
        if fits:
            kept = tuple(each for each in parsed.manifests if fits(each.digest))
            parsed = Index(schema_version=2, manifests=kept or parsed.manifests)
        digest = choose(parsed, wanted, subject=subject).digest
    raise Corrupt(f"image {subject} has indexes nested too deep")


def check_kind(manifest: Manifest, *, subject: str) -> None:
    """Refuse artifacts that are no disk image either. Raises `NotAnImage`."""
    if manifest.config.media_type not in CONFIGS and not model.is_disk(manifest):
        raise NotAnImage(subject, (manifest.artifact_type or manifest.config.media_type)[:100])


def describe(content: ContentStore, digest: str, found: Found, *, subject: str) -> ImageRecord:
    """Build the record of an image all of whose parts are in the store, or layers that can be had again.

    `digest` is what it was asked for by.

    Raises `MissingContent`, `NotAnImage`, `Corrupt`.
    """
    manifest = found.manifest
    check_kind(manifest, subject=subject)
    for part in (manifest.config, *manifest.layers):
        if not content.has(part.digest):
            raise MissingContent(subject, part.digest)
        if content.size(part.digest) != part.size:
            raise Corrupt(f"image {subject} is corrupt: {part.digest} does not have the size its manifest says")
    if model.is_disk(manifest):
        return _disk(content, digest, found, subject)
    image = configs.parse(content.read(manifest.config.digest, limit=configs.LIMIT), subject=subject)
    return record_of(image, manifest, digest=digest, chosen=found.digest, subject=subject)


def _disk(content: ContentStore, digest: str, found: Found, subject: str) -> ImageRecord:
    """Build the record of a disk image, whose index is held against its packs.

    It holds no time, so that the same disk has the same digest; it counts from when it came here, unless it says more.
    """
    manifest = found.manifest
    index.read(content, manifest, subject)
    disk = index.read_config(content, manifest, subject)
    layers = tuple(
        Layer(digest=each.digest, size=each.size, media_type=each.media_type, diff_id=each.digest)
        for each in manifest.layers
    )
    return ImageRecord(
        id=manifest.config.digest,
        digest=digest,
        manifest=found.digest,
        layers=layers,
        size=manifest.config.size + sum(layer.size for layer in layers),
        platform=f"{disk.os}/{disk.architecture}",
        created=(manifest.annotations or {}).get("org.opencontainers.image.created", rfc3339(now_ns()))[:40],
        disk=disk,
    )


def record_of(image: Image, manifest: Manifest, *, digest: str, chosen: str, subject: str) -> ImageRecord:
    """Build a record from a configuration and the manifest it belongs to."""
    diff_ids = image.rootfs.diff_ids
    if image.rootfs.type != "layers" or len(diff_ids) != len(manifest.layers):
        raise Corrupt(f"image {subject} is corrupt: {len(manifest.layers)} layers, but {len(diff_ids)} diff ids")
    layers = tuple(
        Layer(digest=each.digest, size=each.size, media_type=each.media_type, diff_id=diff_id)
        for each, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )
    return ImageRecord(
        id=manifest.config.digest,
        digest=digest,
        manifest=chosen,
        layers=layers,
        size=manifest.config.size + sum(layer.size for layer in layers),
        platform=str(image.platform),
        created=image.created or "",
        labels=image.defaults.labels or {},
    )


def _is_real(platform: Platform | None) -> bool:
    """Attestations stand in indexes with the platform unknown/unknown."""
    return platform is not None and platform.architecture != "unknown"
