"""Images from a tar: OCI layouts and what `docker save` writes, in one pass, without seeking.

Members become blobs as they stream by; only when the archive has ended is it known which of them an
image needs. A lease protects them until then, and the next collection takes what was of no use.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from trivet.base.error import Corrupt, InvalidArgument
from trivet.client.schema import Progress
from trivet.engine.image import adopt, retention
from trivet.engine.image.model import ARCHIVE, ImageRecord, Name
from trivet.engine.image.progress import Report
from trivet.engine.snapshot import tar
from trivet.engine.snapshot.stream import CHUNK, Readable, decompressed
from trivet.engine.snapshot.tar import Entry, Reader
from trivet.oci import config as configs
from trivet.oci import digest as digests
from trivet.oci import layout
from trivet.oci import manifest as manifests
from trivet.oci import platform as platforms
from trivet.oci import reference as references
from trivet.oci.descriptor import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, Descriptor
from trivet.oci.manifest import Index, Manifest
from trivet.oci.reference import MalformedReference
from trivet.store.content import ContentStore
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

MAXIMUM_MEMBERS = 20_000
DOCKER_INDEX_FILE = "manifest.json"


class NotAnArchive(InvalidArgument):
    """A tar that holds no images, or no tar at all."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"cannot load images: {problem}", hint="trivet import makes an image of a root file system")


class DockerImage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A row of Docker's manifest.json; the paths are members of the archive."""

    config: str
    layers: tuple[str, ...] | None = None
    repo_tags: tuple[str, ...] | None = None


class _Ready(NamedTuple):
    record: ImageRecord
    names: list[Name]


def load(images: Images, file: Readable, report: Report) -> list[str]:
    """Load every image of an archive, or none. Return their names, or the ids of those that have none.

    Raises `NotAnArchive`, `Corrupt` for damaged content, `WrongPlatform` never: an archive may hold any platform.
    """
    images.trust.admit_archive("docker-archive", "from an archive")
    with images.leases.hold("loading an archive") as lease:
        members = _read(images.content, file, lease, report)
        ready = _oci_images(images.content, members) or _docker_images(images.content, members, lease)
        if not ready:
            raise NotAnArchive("the archive has neither images in index.json nor a manifest.json")
        loaded = []
        with images.records.transaction():
            for image in ready:
                images.catalog.add(msgspec.structs.replace(image.record, origin=ARCHIVE), image.names)
                loaded += [name.familiar for name in image.names] or [image.record.id]
    retention.sweep(images)
    return list(dict.fromkeys(loaded))


def _read(content: ContentStore, file: Readable, lease: Lease, report: Report) -> dict[str, str]:
    """Store every member; map their normalised paths to digests, links resolved."""
    members: dict[str, str] = {}
    links: dict[str, str] = {}
    reader = Reader(decompressed(file, subject="the archive"))
    try:
        for entry in reader:
            path = posixpath.normpath("/" + entry.name.decode("utf-8", "surrogateescape")).lstrip("/")
            if entry.type == tar.FILE:
                members[path] = _store(content, path, entry, reader, lease, report)
            elif entry.type in (tar.SYMLINK, tar.HARD_LINK):
                links[path] = _target(path, entry)
            if len(members) + len(links) > MAXIMUM_MEMBERS:
                raise NotAnArchive(f"the archive has more than {MAXIMUM_MEMBERS} members")
    except tar.MalformedTar as error:
        if not members:
            raise NotAnArchive(error.message) from error
        raise
    for path, target in links.items():
        if target in members:
            members.setdefault(path, members[target])
    return members


def _store(content: ContentStore, path: str, entry: Entry, reader: Reader, lease: Lease, report: Report) -> str:
    expected = _digest_of_path(path)
    with content.ingest(expected, entry.size, lease=lease) as ingest:
        reader.copy(entry.size, ingest.write)
    if entry.size > CHUNK:
        short = digests.short(ingest.digest)
        report(Progress(id=short, status="loaded", current=entry.size, total=entry.size))
    return ingest.digest


def _digest_of_path(path: str) -> str | None:
    """Tell which digest a member must have by its place in the layout; None for other members."""
    words = path.split("/")
    if len(words) != 3 or words[0] != layout.BLOBS:
        return None
    return digests.check(f"{words[1]}:{words[2]}")


def _target(path: str, entry: Entry) -> str:
    link = entry.link.decode("utf-8", "surrogateescape")
    base = posixpath.dirname(path) if entry.type == tar.SYMLINK else ""
    return posixpath.normpath("/" + posixpath.join(base, link)).lstrip("/")


def _oci_images(content: ContentStore, members: dict[str, str]) -> list[_Ready]:
    if layout.INDEX not in members:
        return []
    raw = content.read(members[layout.INDEX], limit=manifests.LIMIT)
    index = manifests.parse(raw, subject=layout.INDEX)
    if not isinstance(index, Index):
        raise NotAnArchive("index.json is not an index")
    ready: dict[tuple[str, str], _Ready] = {}
    for descriptor in index.manifests:
        image = _oci_image(content, descriptor)
        known = ready.setdefault((image.record.id, image.record.digest), image)
        known.names.extend(name for name in image.names if name not in known.names)
    return list(ready.values())


def _oci_image(content: ContentStore, descriptor: Descriptor) -> _Ready:
    name = _name(descriptor.annotations or {})
    subject = name or descriptor.digest
    if not content.exists(descriptor.digest):
        raise adopt.MissingContent(subject, descriptor.digest)
    found = adopt.resolve(content, descriptor.digest, platforms.host(), subject=subject, fits=content.exists)
    record = adopt.describe(content, descriptor.digest, found, subject=subject)
    names = [Name(reference=name, digest=descriptor.digest, manifest=found.digest)] if name else []
    return _Ready(record, names)


def _name(annotations: dict[str, str]) -> str:
    """Find an image's full name; a bare tag in the annotation names nothing."""
    for text in (annotations.get(layout.IMAGE_NAME, ""), annotations.get(layout.REFERENCE_NAME, "")):
        if ":" in text or "/" in text:
            try:
                return str(references.parse(text).tagged())
            except MalformedReference:
                continue
    return ""


def _docker_images(content: ContentStore, members: dict[str, str], lease: Lease) -> list[_Ready]:
    if DOCKER_INDEX_FILE not in members:
        return []
    raw = content.read(members[DOCKER_INDEX_FILE], limit=manifests.LIMIT)
    try:
        rows = msgspec.json.decode(raw, type=list[DockerImage])
    except msgspec.DecodeError as error:
        raise NotAnArchive(f"manifest.json is malformed: {error}") from error
    return [_docker_image(content, row, members, lease) for row in rows]


def _docker_image(content: ContentStore, row: DockerImage, members: dict[str, str], lease: Lease) -> _Ready:
    """Give an image without a manifest one: of Docker's kind, the same for the same layers."""
    subject = (row.repo_tags or (row.config,))[0]

    def member(path: str) -> str:
        try:
            return members[posixpath.normpath(path)]
        except KeyError:
            raise Corrupt(f"image {subject} is incomplete: the archive has no member {path}") from None

    config = member(row.config)
    image = configs.parse(content.read(config, limit=configs.LIMIT), subject=subject)
    layers = tuple(_layer(content, member(path)) for path in row.layers or ())
    manifest = Manifest(
        schema_version=2,
        media_type=DOCKER_MANIFEST,
        config=Descriptor(media_type=DOCKER_CONFIG, digest=config, size=content.size(config)),
        layers=layers,
    )
    digest = content.add(msgspec.json.encode(manifest, order="deterministic"), lease=lease)
    record = adopt.record_of(image, manifest, digest=digest, chosen=digest, subject=subject)
    names = [str(references.parse(tag).tagged()) for tag in row.repo_tags or ()]
    return _Ready(record, [Name(reference=name, digest=digest, manifest=digest) for name in names])


def _layer(content: ContentStore, digest: str) -> Descriptor:
    with content.open(digest) as file:
        packed = file.read(2) == b"\x1f\x8b"
    kind = DOCKER_LAYER_GZIP if packed else DOCKER_LAYER
    return Descriptor(media_type=kind, digest=digest, size=content.size(digest))
