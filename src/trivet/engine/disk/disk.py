"""Disk images of one engine: taken in from files, written to files, made into machines' disks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from trivet.engine.disk import capture, convert, header, index, model
from trivet.engine.disk.base import Bases
from trivet.engine.disk.capture import Earlier
from trivet.engine.disk.model import CONFIG, Disk, Firmware, Format, NotADisk
from trivet.engine.image import adopt, detail
from trivet.engine.image.model import BUILT, ImageRecord, Name
from trivet.engine.image.progress import Meter, Report, silent
from trivet.oci import manifest as manifests
from trivet.oci import platform as platforms
from trivet.oci import reference as references
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Manifest
from trivet.oci.platform import Platform
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

MOST_EARLIER = 16  # disk images whose chunks are looked at when a new one comes
TITLE = "org.opencontainers.image.title"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A disk image file to be taken in: `name` is for messages, `format` what the user says it is."""

    path: Path
    name: str
    format: Format
    platform: Platform
    firmware: Firmware = Firmware.ANY


class Disks:
    """All disk images of one engine. Methods block and may be called from any thread."""

    def __init__(self, images: Images, bases: Bases) -> None:
        self._images = images
        self._content = images.content
        self.bases = bases

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Give an empty directory, which only root can enter, on the store's file system; it is gone afterwards."""
        path = Path(tempfile.mkdtemp(dir=self._content.scratch))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def import_(self, source: Source, reference: str = "", report: Report = silent) -> ImageRecord:
        """Make an image of a disk image file. The file may be read by others from now on, and not be reached by them.

        Raises `DiskRefused` for a file that isn't what it is said to be, or refers to others.
        """
        names = [str(references.parse(reference).tagged())] if reference else []
        with self._images.leases.hold(f"importing {source.name}") as lease, self.room() as room:
            with source.path.open("rb") as file:
                size = header.virtual_size(file, source.format, source.name)
            raw = source.path
            if source.format != Format.RAW:
                report_step(report, source.name, "converting", size)
                source.path.chmod(0o444)
                raw = room / "raw"
                convert.convert(source.path, source.format, raw, Format.RAW, room, what=source.name)
            with raw.open("rb") as file:
                digest = self._store(file, size, source, lease, report)
            found = adopt.Found(digest, self._manifest(digest, source.name))
            record = adopt.describe(self._content, digest, found, subject=source.name)
            record = msgspec.structs.replace(record, origin=BUILT)
            given = [Name(reference=name, digest=digest, manifest=digest) for name in names]
            return self._images.catalog.add(record, given)

    def find(self, ref: str) -> tuple[ImageRecord, str]:
        """Find a disk image; also give its manifest's digest. Raises `ImageNotFound`, `NotADisk`."""
        record, name = self._images.catalog.find(ref)
        if record.disk is None:
            raise NotADisk(ref)
        return record, name.manifest if name else record.manifest

    @contextmanager
    def using(self, ref: str, report: Report = silent) -> Iterator[tuple[ImageRecord, Path]]:
        """Hold a disk image as an immutable raw file while the block runs: for `Bases.overlay`, or to be read.

        Who needs it for longer must be among the image's users (`Images.users`) when the block ends.
        Raises `ImageRefused` if the policy forbids the image.
        """
        record, manifest = self.find(ref)
        self._images.trust.use(*self._images.catalog.find(ref), ref)
        assert record.disk
        meter = Meter(report, detail.title(record), record.disk.virtual_size)
        with self._images.leases.hold(f"use of disk image {ref}") as lease:
            lease.add(manifest)
            with self.bases.using(record.id, manifest, ref, partial(meter.count, "unpacking")) as path:
                yield record, path

    def overlay(self, ref: str, target: Path, size: int = 0, report: Report = silent) -> ImageRecord:
        """Make `target` a thin qcow2 disk over an image, of `size` bytes (0: the image's); see `using`."""
        with self.using(ref, report) as (record, base):
            self.bases.overlay(base, target, size, ref)
            return record

    def export(self, ref: str, form: Format, file: BinaryIO, *, compress: bool = False) -> None:
        """Write a disk image as a file of a format; a raw one with holes only if `file` can have them."""
        with self.room() as room:
            target = room / "disk"
            self.write(ref, form, target, room, compress=compress)
            with target.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)

    def write(self, ref: str, form: Format, target: Path, room: Path, *, compress: bool = False) -> ImageRecord:
        """Make `target`, below the empty directory `room`, a file of a format with the content of an image."""
        record, digest = self.find(ref)
        with self._images.leases.hold(f"export of disk image {ref}") as lease:
            lease.add(digest)
            raw = target if form == Format.RAW else room / "raw"
            with raw.open("xb") as file:
                index.restore(self._content, self._manifest(digest, ref), file.fileno(), ref)
            if form != Format.RAW:
                raw.chmod(0o444)
                options = "subformat=streamOptimized" if compress and form == Format.VMDK else ""
                packed = compress and form == Format.QCOW2
                convert.convert(raw, Format.RAW, target, form, room, what=ref, options=options, compress=packed)
                raw.unlink()
        return record

    def _store(self, file: BinaryIO, size: int, source: Source, lease: Lease, report: Report) -> str:
        """Store a raw disk as an artifact; return its manifest's digest."""
        meter = Meter(report, source.name, size)
        found = capture.scan(file.fileno(), size, partial(meter.count, "reading"))
        stored = partial(Meter(report, source.name, 0).count, "storing")
        layers, _ = capture.store(self._content, lease, file.fileno(), found, self._earlier(), stored)
        disk = Disk(
            virtual_size=size,
            content=index.content_of(size, found.parts),
            format=source.format,
            os=source.platform.os,
            architecture=source.platform.architecture,
            firmware=source.firmware,
        )
        raw = msgspec.json.encode(disk, order="deterministic")
        config = Descriptor(media_type=CONFIG, digest=self._content.add(raw, lease=lease), size=len(raw))
        return self._content.add(capture.manifest_of(config, layers, {TITLE: source.name}), lease=lease)

    def _earlier(self) -> Earlier:
        """Read the indexes of the disk images that came last."""
        for record in [each for each in self._images.catalog.all() if each.disk][-MOST_EARLIER:]:
            try:
                manifest = self._manifest(record.manifest, record.id)
                yield manifest, index.read(self._content, manifest, record.id)
            except (model.BrokenDisk, adopt.MissingContent):
                continue  # then its chunks are written anew

    def _manifest(self, digest: str, subject: str) -> Manifest:
        parsed = manifests.parse(self._content.read(digest, limit=manifests.LIMIT), subject=subject)
        assert isinstance(parsed, Manifest)
        return parsed


def report_step(report: Report, name: str, status: str, total: int) -> None:
    """Tell that a step without a measure begins."""
    Meter(report, name, total).count(status, 0)


def describe(name: str, path: Path, word: str, platform: str, firmware: str) -> Source:
    """Fold what a user said about a file into a `Source`. Raises `UnknownFormat`, `InvalidArgument`."""
    wanted = platforms.parse(platform) if platform else platforms.host()
    return Source(
        path=path,
        name=Path(name).name[:100] or "the disk image",
        format=model.format_of(word),
        platform=wanted,
        firmware=model.firmware_of(firmware),
    )
