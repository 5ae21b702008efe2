"""Appliances and images: every disk of one becomes an image, and an image the only disk of one."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from trivet.engine.disk import ova
from trivet.engine.disk.disk import Disks, Source
from trivet.engine.disk.machine import Machine
from trivet.engine.disk.model import Firmware, Format
from trivet.engine.image.model import ImageRecord
from trivet.engine.image.progress import Report, silent
from trivet.oci import reference as references
from trivet.oci.platform import Platform


class Imported(NamedTuple):
    """The machine, and the images of its disks, in its order."""

    machine: Machine
    images: tuple[ImageRecord, ...]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """An OVA to be taken in: `name` is for messages, `reference` names the first disk's image ("": none has a name)."""

    path: Path
    name: str
    platform: Platform
    firmware: Firmware = Firmware.ANY
    reference: str = ""


def import_(disks: Disks, wish: Wish, report: Report = silent) -> Imported:
    """Make images of an OVA's disks: NAME:TAG, NAME-disk2:TAG, ...

    Raises `ApplianceRefused`, `DiskRefused`.
    """
    with disks.room() as room:
        with wish.path.open("rb") as file:
            machine, files = ova.unpack(file, room, wish.name)
        records = []
        for number, (disk, path) in enumerate(zip(machine.disks, files, strict=True), 1):
            source = Source(
                path=path,
                name=disk.file,
                format=disk.format,
                platform=wish.platform,
                firmware=wish.firmware or machine.firmware,
            )
            records.append(disks.import_(source, name_of(wish.reference, number), report))
    return Imported(machine, tuple(records))


def name_of(reference: str, number: int) -> str:
    """Name the image of an appliance's disk."""
    if not reference or number == 1:
        return reference
    parsed = references.parse(reference).tagged()
    return str(msgspec.structs.replace(parsed, path=f"{parsed.path}-disk{number}"))


def export(disks: Disks, ref: str, file: BinaryIO) -> None:
    """Write an OVA of a machine whose only disk is an image; it has one processor, 1 GiB and no network."""
    record, _ = disks.find(ref)
    assert record.disk
    parsed = references.parse(record.names[0].reference) if record.names else None
    name = parsed.path.rpartition("/")[2] if parsed else "disk"
    with disks.room() as room:
        raw, work, out = room / "raw", room / "work", room / "out"
        work.mkdir()
        out.mkdir()
        disks.write(ref, Format.RAW, raw, work)
        raw.chmod(0o444)
        ova.write(Machine(name=name, firmware=record.disk.firmware), [raw], file, out)
