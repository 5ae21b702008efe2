"""What is told about an image beside it: its packages (SPDX) and how it was made (SLSA), as artifacts that refer to it.

Each is a small OCI artifact whose `subject` is the image's manifest (OCI 1.1 referrers). They are kept as long as the
image and pushed with it. The same image has the same bytes, whenever they are made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from trivet.base.error import Corrupt, Unsupported
from trivet.engine.image import package
from trivet.engine.image.model import ImageRecord
from trivet.engine.image.package import Package
from trivet.engine.snapshot.snapshotter import Viewed
from trivet.oci import manifest as manifests
from trivet.oci.descriptor import OCI_MANIFEST, Descriptor
from trivet.oci.manifest import Manifest
from trivet.store.lease import Lease
from trivet.store.record import Records

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

SPDX = "application/spdx+json"
IN_TOTO = "application/vnd.in-toto+json"
EMPTY = "application/vnd.oci.empty.v1+json"
KINDS = (SPDX, IN_TOTO)
MOST = 20  # referrers of one manifest that are fetched
LARGEST = 64 << 20
LICENSE = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")


class Attached(msgspec.Struct, frozen=True):
    """An artifact, by digest, about the manifest `subject`."""

    id: str
    subject: str
    kind: str


class NotUnpacked(Unsupported):
    """An image whose files can't be read here."""

    def __init__(self, image: str) -> None:
        super().__init__(f"cannot list the packages of {image}: it isn't for this machine, so it isn't unpacked")


class Attestations:
    """The artifacts of one engine's images."""

    def __init__(self, records: Records) -> None:
        self._table = records.table("attestation", Attached)

    def of(self, *subjects: str) -> list[Attached]:
        """List what is told about manifests."""
        return [each for each in self._table.all() if each.subject in subjects]

    def forget(self, keep: set[str]) -> None:
        """Drop what is told about manifests that no image has any more."""
        for each in self._table.all():
            if each.subject not in keep:
                self._table.delete(each.id)

    def attach(self, images: Images, subject: str, kind: str, body: bytes, lease: Lease) -> str:
        """Store an artifact about a manifest, in place of an older one of its kind; return its digest."""
        content = images.content
        empty = Descriptor(media_type=EMPTY, digest=content.add(b"{}", lease=lease), size=2)
        blob = Descriptor(media_type=kind, digest=content.add(body, lease=lease), size=len(body))
        raw = content.read(subject, limit=manifests.LIMIT)
        about = manifests.media_type_of(manifests.parse(raw, subject=subject))
        manifest = Manifest(
            schema_version=2,
            media_type=OCI_MANIFEST,
            artifact_type=kind,
            config=empty,
            layers=(blob,),
            subject=Descriptor(media_type=about, digest=subject, size=len(raw)),
        )
        digest = content.add(msgspec.json.encode(manifest, order="deterministic"), lease=lease)
        for old in self.of(subject):
            if old.kind == kind:
                self._table.delete(old.id)
        self._table.put(digest, Attached(digest, subject, kind))
        return digest

    def keep(self, images: Images, digest: str, manifest: Manifest) -> None:
        """Remember an artifact that is here. Raises `Corrupt` for one that can't be read."""
        assert manifest.subject
        assert manifest.artifact_type
        attached = Attached(digest, manifest.subject.digest, manifest.artifact_type)
        try:
            msgspec.json.decode(self.read(images, attached), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise Corrupt(f"what {digest} tells about {attached.subject} is malformed: {error}") from error
        self._table.put(digest, attached)

    def read(self, images: Images, attached: Attached) -> bytes:
        """Read what an artifact says."""
        parsed = manifests.parse(images.content.read(attached.id, limit=manifests.LIMIT), subject=attached.id)
        assert isinstance(parsed, Manifest)
        return images.content.read(parsed.layers[0].digest, limit=1 << 28)


def is_about(manifest: Manifest, subject: str) -> bool:
    """Tell whether an artifact from elsewhere is one of ours in form, and about this manifest."""
    right = manifest.artifact_type in KINDS and manifest.subject is not None and manifest.subject.digest == subject
    return right and len(manifest.layers) == 1 and max(manifest.layers[0].size, manifest.config.size) <= LARGEST


def bill(images: Images, record: ImageRecord, manifest: str, name: str) -> bytes:
    """Write the bill of materials of an image: SPDX 2.3, JSON. Its time is the image's."""
    snapshotter = images.snapshotters["mount"]
    if not isinstance(snapshotter, Viewed):
        raise NotUnpacked(name)
    snapshotter.prepare(record)
    found = package.packages(snapshotter.lowers(record))
    return msgspec.json.format(msgspec.json.encode(spdx(found, name, manifest, record.created)), indent=1)


def spdx(found: list[Package], name: str, digest: str, created: str) -> dict[str, Any]:
    """Describe an image and its packages (SPDX 2.3, clauses 6, 7 and 11)."""
    image = {
        **_nothing("SPDXRef-image", name, digest),
        "checksums": [{"algorithm": digest.partition(":")[0].upper(), "checksumValue": digest.partition(":")[2]}],
        "primaryPackagePurpose": "CONTAINER",
    }
    listed = [_listed(number, each) for number, each in enumerate(found)]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"urn:trivet:sbom:{digest}",
        "creationInfo": {"created": _seconds(created), "creators": ["Tool: trivet"]},
        "packages": [image, *listed],
        "relationships": [
            _related("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image"),
            *(_related("SPDXRef-image", "CONTAINS", each["SPDXID"]) for each in listed),
        ],
    }


def _seconds(created: str) -> str:
    """Spell a time as SPDX wants it, without fractions."""
    found = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", created)
    return f"{found[0] if found else '1970-01-01T00:00:00'}Z"


def _nothing(key: str, name: str, version: str) -> dict[str, Any]:
    unknown = ("downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText", "supplier")
    return {"SPDXID": key, "name": name, "versionInfo": version, "filesAnalyzed": False} | dict.fromkeys(
        unknown, "NOASSERTION"
    )


def _listed(number: int, found: Package) -> dict[str, Any]:
    name = found.name.partition("/")[2] if found.kind in ("deb", "apk") else found.name
    purl = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": found.url}
    said = {"licenseDeclared": found.license} if LICENSE.fullmatch(found.license) else {}
    return {**_nothing(f"SPDXRef-package-{number}", name, found.version), **said, "externalRefs": [purl]}


def _related(one: str, how: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}
