"""A machine that is off as a file for elsewhere (OVA, or its root disk), or as an image for further ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trivet.base.error import Conflict
from trivet.engine.disk import convert, model, ova, tool
from trivet.engine.disk.disk import Disks, Source
from trivet.engine.disk.machine import Machine, Nic
from trivet.engine.disk.model import Firmware, Format
from trivet.engine.image.model import ImageRecord
from trivet.engine.image.progress import Report
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.machine import reading
from trivet.isolation import computer
from trivet.isolation.hardware import Disk
from trivet.oci import platform as platforms
from trivet.store.content import explaining_full

OVA = "ova"


def check(record: InstanceRecord, form: str, verb: str = "export") -> None:
    """Refuse what can't be exported. Raises `Conflict` for a machine that runs, `UnknownFormat`."""
    if record.word in (Word.RUNNING, Word.PAUSED):
        raise Conflict(f"cannot {verb} machine {record.name}: it runs", hint=f"trivet vm stop {record.name}")
    if form != OVA:
        model.format_of(form)


def writer(context: Context, record: InstanceRecord, form: str) -> Callable[[BinaryIO], None]:
    """Prepare to write a machine as a file; what is returned does it, blocking."""
    disks = computer.hardware(record.plan).disks

    def write(file: BinaryIO) -> None:
        with _raws(context.images.disks, disks if form == OVA else disks[:1]) as (raws, room):
            if form == OVA:
                ova.write(_described(record), raws, file, room)
                return
            source, wanted = raws[0], model.format_of(form)
            if wanted != Format.RAW:
                (room / "work").mkdir(mode=0o700)
                source = room / "disk"
                convert.convert(raws[0], Format.RAW, source, wanted, room / "work", what=record.name)
            with source.open("rb") as made:
                while block := made.read(1 << 20):
                    file.write(block)

    return write


def commit(context: Context, record: InstanceRecord, reference: str, report: Report) -> ImageRecord:
    """Make a disk image of a machine's root disk, for further machines to begin with."""
    disks = context.images.disks
    firmware = Firmware.UEFI if computer.hardware(record.plan).firmware == "uefi" else Firmware.ANY
    with _raws(disks, computer.hardware(record.plan).disks[:1]) as (raws, _):
        source = Source(path=raws[0], name=record.name, format=Format.RAW, platform=platforms.host(), firmware=firmware)
        return disks.import_(source, reference, report)


@contextmanager
def _raws(disks: Disks, wanted: tuple[Disk, ...]) -> Iterator[tuple[list[Path], Path]]:
    """Write disks as raw files; also give an empty directory beside them. All is gone when the block ends."""
    with disks.room() as home:
        raws = []
        for disk in wanted:
            raws.append(home / f"{disk.name}.raw")
            with explaining_full(raws[-1]), tool.opened(f"read disk {disk.name}") as qemu:
                raws[-1].touch(0o600)
                os.truncate(raws[-1], disk.size)
                qemu.copy(reading.add(qemu, disk), raws[-1], Format.RAW)
            raws[-1].chmod(0o444)
        room = home / "room"
        room.mkdir(mode=0o700)
        yield raws, room


def _described(record: InstanceRecord) -> Machine:
    plan, parts = record.plan, computer.hardware(record.plan)
    return Machine(
        name=record.name,
        cpus=computer.cpus(plan),
        memory=computer.memory(plan),
        firmware=Firmware.UEFI if parts.firmware == "uefi" else Firmware.BIOS,
        nics=tuple(Nic(network=use.network, model="virtio") for use in plan.attachments if use.kind != "none"),
    )
