"""An artifact's files: each a layer whose title is its name, as ORAS writes and reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import msgspec

from trivet.base.error import Corrupt, InvalidArgument, Unsupported
from trivet.engine.snapshot import tar
from trivet.engine.snapshot.pack import CHUNK, Packer
from trivet.engine.snapshot.tar import Reader
from trivet.oci.descriptor import OCI_EMPTY, OCI_MANIFEST, Descriptor
from trivet.oci.manifest import MAXIMUM_LAYERS, Manifest
from trivet.store.content import ContentStore
from trivet.store.lease import Lease

TITLE = "org.opencontainers.image.title"
ARTIFACT = "application/vnd.unknown.artifact.v1"
FILE = "application/vnd.oci.image.layer.v1.tar"
KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")

Files = list[Descriptor]


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of an artifact as a whole."""

    kind: str = ""
    annotations: dict[str, str] = {}
    subject: Descriptor | None = None

    def to(self, subject: Descriptor) -> About:
        """Say that it is about a manifest."""
        return msgspec.structs.replace(self, subject=subject)


class NoFiles(Unsupported):
    """An artifact none of whose parts is a file."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"{subject} holds no files: none of its layers has a title", hint=f"trivet pull {subject}")


def read(content: ContentStore, lease: Lease, file: BinaryIO, kinds: Sequence[str]) -> Files:
    """Store the files of a tar, each described by its name and media type ("": `FILE`)."""
    found: Files = []
    reader = Reader(file)
    for number, entry in enumerate(reader):
        name = entry.name.decode("utf-8", "surrogateescape")
        if entry.type != tar.FILE or entry.sparse is not None:
            raise InvalidArgument(
                f"{name} is no plain file: artifacts are made of files", hint="pack directories first"
            )
        check_title(name)
        if len(found) >= MAXIMUM_LAYERS:
            raise InvalidArgument(f"an artifact can't have more than {MAXIMUM_LAYERS} files")
        with content.ingest(None, entry.size, lease=lease) as blob:
            reader.copy(entry.size, blob.write)
        kind = check_kind((kinds[number] if number < len(kinds) else "") or FILE)
        found.append(Descriptor(media_type=kind, digest=blob.digest, size=blob.size, annotations={TITLE: name}))
    titles = [(each.annotations or {})[TITLE] for each in found]
    if len(set(titles)) < len(titles):
        raise InvalidArgument("two files of an artifact can't have the same name")
    return found


def manifest_of(content: ContentStore, lease: Lease, files: Files, about: About) -> tuple[Descriptor, bytes]:
    """Write an artifact's manifest: the same files give the same bytes. Also give its empty configuration."""
    if not files and not about.annotations:
        raise InvalidArgument("an artifact needs files, or at least annotations")
    empty = Descriptor(media_type=OCI_EMPTY, digest=content.add(b"{}", lease=lease), size=2)
    manifest = Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        artifact_type=check_kind(about.kind or ARTIFACT),
        config=empty,
        layers=tuple(files) or (empty,),
        subject=about.subject,
        annotations=dict(about.annotations) or None,
    )
    return empty, msgspec.json.encode(manifest, order="deterministic")


def titles(manifest: Manifest, subject: str) -> dict[str, Descriptor]:
    """Map the names of an artifact's files to their content. Raises `NoFiles`, `Corrupt` for names that lead away."""
    found: dict[str, Descriptor] = {}
    for layer in manifest.layers:
        name = (layer.annotations or {}).get(TITLE, "")
        if not name:
            continue
        try:
            check_title(name)
        except InvalidArgument as error:
            raise Corrupt(f"artifact {subject} is refused: {error.message}") from error
        if name in found:
            raise Corrupt(f"artifact {subject} has two files called {name}")
        found[name] = layer
    if not found:
        raise NoFiles(subject)
    return found


def write(content: ContentStore, files: Mapping[str, Descriptor], sink: BinaryIO) -> None:
    """Write files as a tar."""
    packer = Packer(sink.write)
    for name, blob in files.items():
        packer.file(name, blob.size)
        with content.open(blob.digest) as file:
            while piece := file.read(CHUNK):
                packer.write(piece)
        packer.pad(blob.size)
    packer.finish()


def check_title(name: str) -> None:
    """Raise `InvalidArgument` unless a name leads to a file below a directory."""
    parts = name.split("/")
    if not name or len(name) > 1000 or not name.isprintable() or {"", ".", ".."} & set(parts):
        raise InvalidArgument(f"{name[:100]!r} can't be the name of a file in an artifact")


def check_kind(kind: str) -> str:
    """Return a media type. Raises `InvalidArgument`."""
    if not KIND.fullmatch(kind):
        raise InvalidArgument(f"{kind[:100]!r} is no media type", hint="as in application/vnd.example.report+json")
    return kind
