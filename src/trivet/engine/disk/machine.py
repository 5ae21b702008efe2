"""A machine as an appliance describes it: what is known of it wherever it ran before."""

from __future__ import annotations

import msgspec

from trivet.base.error import InvalidArgument
from trivet.engine.disk.model import Firmware, Format


class DiskFile(msgspec.Struct, frozen=True, kw_only=True):
    """One of a machine's disks: a file of the appliance. `capacity` is what the description says, in bytes."""

    file: str
    format: Format
    capacity: int
    controller: str = ""  # ide, scsi, sata, or "" where it isn't said
    size: int | None = None  # of the file, where the description says it


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface: the name of the network it was on, and the kind of card."""

    network: str = ""
    model: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine without its name's last word on anything: who imports it may choose otherwise. Memory in bytes."""

    name: str
    cpus: int = 1
    memory: int = 1 << 30
    firmware: Firmware = Firmware.ANY
    os: str = ""
    disks: tuple[DiskFile, ...] = ()
    nics: tuple[Nic, ...] = ()


class ApplianceRefused(InvalidArgument):
    """An OVA or OVF that isn't one, is incomplete, or wants what it shouldn't."""

    def __init__(self, name: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{name} cannot be taken as an appliance: {problem}", hint=hint)
