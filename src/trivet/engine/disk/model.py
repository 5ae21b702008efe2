"""What a disk image is: an OCI artifact whose configuration says what is on its layers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from trivet.base.error import Corrupt, InvalidArgument, Unsupported
from trivet.oci.digest import Digest
from trivet.oci.manifest import Manifest

ARTIFACT = "application/vnd.trivet.disk.v1"
CONFIG = "application/vnd.trivet.disk.config.v1+json"
INDEX = "application/vnd.trivet.disk.index.v1+msgpack.zstd"
PACK = "application/vnd.trivet.disk.pack.v1"

SECTOR = 512
LARGEST = 8 << 40
"""Bytes of the largest virtual disk."""


class Format(StrEnum):
    """How a disk image file is written."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    VDI = "vdi"


class Firmware(StrEnum):
    """What starts the operating system on the disk; ANY: it was not said."""

    ANY = ""
    BIOS = "bios"
    UEFI = "uefi"


class Disk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The configuration of a disk image. `content` names what is on the disk, however it is packed.

    `format` is that of the file it was made from.
    """

    virtual_size: Annotated[int, msgspec.Meta(ge=SECTOR, le=LARGEST)]
    content: Digest
    format: Format
    os: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9._-]{1,32}\Z")]
    architecture: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9._-]{1,32}\Z")]
    firmware: Firmware = Firmware.ANY


class DiskRefused(InvalidArgument):
    """A file that isn't the disk image it was said to be, or one that is dangerous to open."""

    def __init__(self, name: str, format: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{name} cannot be taken as a disk image of format {format}: {problem}", hint=hint)


class UnknownFormat(InvalidArgument):
    """A word that names no format."""

    def __init__(self, word: str) -> None:
        super().__init__(f"unknown format of disk images {word!r}", hint=f"one of {', '.join(Format)}")


class BrokenDisk(Corrupt):
    """A stored disk image that can't be put together again."""

    def __init__(self, subject: str, problem: object) -> None:
        super().__init__(f"disk image {subject} is corrupt: {problem}")


class IsDisk(Unsupported):
    """A disk image where an image of files is wanted."""

    def __init__(self, image: str, action: str = "run") -> None:
        super().__init__(
            f"cannot {action} {image}: it is the disk of a machine, not a root file system",
            hint=f"trivet vm create NAME --image {image}",
        )


class NotADisk(InvalidArgument):
    """An image of files where a disk image is wanted."""

    def __init__(self, image: str) -> None:
        super().__init__(f"image {image} is no disk image", hint="trivet save writes images of files")


def format_of(word: str) -> Format:
    """Read a format's name. Raises `UnknownFormat`."""
    try:
        return Format(word.lower())
    except ValueError:
        raise UnknownFormat(word) from None


def firmware_of(word: str) -> Firmware:
    """Read a firmware's name. Raises `InvalidArgument`."""
    try:
        return Firmware(word.lower())
    except ValueError:
        raise InvalidArgument(f"unknown firmware {word!r}", hint="bios or uefi") from None


def is_disk(manifest: Manifest) -> bool:
    """Tell whether a manifest is that of a disk image."""
    return manifest.config.media_type == CONFIG


def parse(raw: bytes, subject: str) -> Disk:
    """Read a configuration. Raises `BrokenDisk`."""
    try:
        return msgspec.json.decode(raw, type=Disk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenDisk(subject, error) from error
