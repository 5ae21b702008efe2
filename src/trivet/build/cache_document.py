"""Steps of the cache as a document, to be kept elsewhere: what `--cache-to` writes and `--cache-from` reads.

An OCI artifact: the document is its configuration; its layers are those of the steps, and the directories of
RUN --mount=type=cache as archives. With `type=inline` the document is an annotation of the image's own manifest.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from trivet.base.error import Corrupt
from trivet.oci.descriptor import OCI_MANIFEST, Descriptor
from trivet.oci.layer import Layer
from trivet.oci.manifest import Manifest

KIND = "application/vnd.trivet.buildcache.v1"
DOCUMENT = f"{KIND}+json"
MOUNT = f"{KIND}.mount.tar+gzip"
ANNOTATION = "dev.trivet.buildcache"
LIMIT = 16 << 20  # bytes of a document
MOST = 100_000  # steps in it


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step: its key, what it made (None: nothing), its date in Unix time."""

    key: str
    layer: Layer | None = None
    time: int = 0


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Steps, and kept directories by their names."""

    entries: tuple[Entry, ...] = ()
    mounts: dict[str, Descriptor] = {}

    def layers(self) -> list[Layer]:
        """List all layers, each once."""
        found = {entry.layer.digest: entry.layer for entry in self.entries if entry.layer}
        return list(found.values())

    def encode(self) -> bytes:
        """Write it: the same steps give the same bytes."""
        return msgspec.json.encode(self, order="deterministic")


def parse(raw: bytes | str, *, subject: str) -> Document:
    """Read a document of somebody else's. Raises `Corrupt`."""
    if len(raw) > LIMIT:
        raise Corrupt(f"the build cache {subject} is larger than {LIMIT >> 20} MiB")
    try:
        document = msgspec.json.decode(raw, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"the build cache {subject} is malformed: {error}") from error
    if len(document.entries) > MOST:
        raise Corrupt(f"the build cache {subject} holds more than {MOST} steps")
    return document


def manifest_of(document: Document, config: Descriptor) -> Manifest:
    """Build the artifact's manifest."""
    layers = [layer.descriptor for layer in document.layers()]
    return Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        artifact_type=KIND,
        config=config,
        layers=tuple(_each_once([*layers, *document.mounts.values()])),
    )


def _each_once(blobs: Iterable[Descriptor]) -> list[Descriptor]:
    return list({blob.digest: blob for blob in blobs}.values())
