"""What a machine with an operating system of its own is made of: the part of a plan that only such a machine has."""

from __future__ import annotations

from typing import Literal

import msgspec

Format = Literal["raw", "qcow2"]


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk image, by host path. What is below a thin one is its `base`, read only; formats are never guessed.

    `size` is what the guest sees, in bytes.
    `iops` and `rate` (bytes a second) are limits, 0 is none. `name` is also the serial number that the guest sees.
    One in a `port` can be unplugged while the machine runs. While it is being filled it shows what is in `kept`: files
    of a backup, the newest first, each with what had changed since the next.
    """

    name: str
    path: str
    size: int = 0
    format: Format = "qcow2"
    base: str = ""
    base_format: Format = "raw"
    iops: int = 0
    rate: int = 0
    port: str = ""
    kept: tuple[str, ...] = ()


class Cdrom(msgspec.Struct, frozen=True, kw_only=True):
    """An ISO image in a drive of its own."""

    path: str


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """What cloud-init is told: `vendor` is trivet's part; `network` "" is made at the start."""

    vendor: str
    user: str = ""
    network: str = ""


class Answer(msgspec.Struct, frozen=True):
    """A file that answers an installer's questions."""

    name: str
    content: str


class Direct(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel that is started without asking firmware for a loader; host paths."""

    kernel: str
    initrd: str = ""
    parameters: str = ""


class Netboot(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of the host that is served to the machine's boot ROM, and the file in it to begin with."""

    directory: str
    file: str


class Usb(msgspec.Struct, frozen=True, kw_only=True):
    """A raw image of the host as a USB stick; where it is plugged in is in its `name`."""

    name: str
    path: str
    read_only: bool = False


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a machine that its instance's other fields don't say.

    `home` keeps what the firmware and the TPM remember. `boot` is the order in which disk, cdrom and network are tried.
    `pci` are classes of which it is given a device of the host (passthrough.py).
    """

    home: str
    firmware: Literal["bios", "uefi"] = "bios"
    secure_boot: bool = False
    tpm: bool = False
    disks: tuple[Disk, ...] = ()
    cdroms: tuple[Cdrom, ...] = ()
    seed: Seed | None = None
    direct: Direct | None = None
    netboot: Netboot | None = None
    answers: tuple[Answer, ...] = ()
    usb: tuple[Usb, ...] = ()
    pci: tuple[str, ...] = ()
    boot: tuple[Literal["disk", "cdrom", "network"], ...] = ("disk", "cdrom", "network")
    watchdog: Literal["", "reset", "poweroff", "pause"] = ""
