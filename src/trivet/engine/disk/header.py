"""What the header of a disk image file says, read by us before any other program sees the file.

The format is what the user said it is. A header that says otherwise is refused, and so is everything by
which a file can point at other files of the host: backing files, data files, extents, parents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

from trivet.engine.disk import header_qcow2, header_vdi, header_vhd, header_vhdx, header_vmdk
from trivet.engine.disk.field import Unreadable, size_of
from trivet.engine.disk.model import LARGEST, SECTOR, DiskRefused, Format


def _raw(file: BinaryIO) -> int:
    """A raw image is what it is: nothing in it is looked at."""
    size = size_of(file)
    return -(-size // SECTOR) * SECTOR


READERS: Mapping[Format, Callable[[BinaryIO], int]] = {
    Format.RAW: _raw,
    Format.QCOW2: header_qcow2.check,
    Format.VMDK: header_vmdk.check,
    Format.VHD: header_vhd.check,
    Format.VHDX: header_vhdx.check,
    Format.VDI: header_vdi.check,
}


def virtual_size(file: BinaryIO, format: Format, name: str) -> int:
    """Check a file's header and tell how large its disk is, in bytes. Raises `DiskRefused` with `name`."""
    try:
        size = READERS[format](file)
    except Unreadable as error:
        raise DiskRefused(name, format, str(error)) from error
    if size < SECTOR:
        raise DiskRefused(name, format, "its disk is empty")
    if size > LARGEST:
        raise DiskRefused(name, format, f"its disk has {size} bytes, more than {LARGEST >> 40} TiB")
    return size
