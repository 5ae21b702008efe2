"""Image records, and what can be wrong with an image as a whole."""

from __future__ import annotations

import msgspec

from trivet.base.error import Conflict, NotFound, Unsupported
from trivet.engine.disk.model import Disk
from trivet.oci import reference as references
from trivet.oci.digest import Digest
from trivet.oci.layer import Layer


class Name(msgspec.Struct, frozen=True, kw_only=True):
    """One name of an image, and the content that was meant by it.

    `reference` is canonical (docker.io/library/debian:bookworm). `digest` is what the registry calls by
    that name, an index or a manifest; `manifest` is this platform's choice from it, or the same.
    """

    reference: str
    digest: Digest
    manifest: Digest

    @property
    def familiar(self) -> str:
        """The name as people write it."""
        return references.parse(self.reference).familiar


BUILT, ARCHIVE = "built", "archive"
"""Where an image may be from that is no registry: this engine, or a file."""


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An image we have. `id` is the digest of its configuration, which names what it unpacks to and does.

    `digest` and `manifest` are as in `Name`, for the image as it first came. `size` counts the
    configuration and the layers as stored, in bytes. An image without names was replaced by a newer one.
    `origin` is as in `trust`: "" is a registry. With `disk` it is a disk image, and its layers are that one's
    index and packs.
    """

    id: Digest
    digest: Digest
    manifest: Digest
    layers: tuple[Layer, ...]
    size: int
    platform: str
    created: str
    names: tuple[Name, ...] = ()
    labels: dict[str, str] = {}
    origin: str = ""
    disk: Disk | None = None


class ImageNotFound(NotFound):
    """An image that isn't here."""

    def __init__(self, reference: str, *, hint: str | None = None) -> None:
        super().__init__(f"no such image: {reference}", hint=hint or f"trivet pull {reference}")
        self.reference = reference


class ImageInUse(Conflict):
    """An image that instances need."""

    def __init__(self, reference: str, users: list[str]) -> None:
        self.reference, self.users = reference, users
        shown = ", ".join(users[:5]) + (" …" if len(users) > 5 else "")
        super().__init__(f"cannot remove image {reference}: used by {shown}", hint="remove the instances first")


class WrongPlatform(Unsupported):
    """An image for another machine."""

    def __init__(self, reference: str, offered: str, wanted: str, *, hint: str | None = None) -> None:
        super().__init__(f"image {reference} is for {offered}, not for {wanted}", hint=hint)
