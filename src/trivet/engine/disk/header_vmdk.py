"""VMDK, one file with everything in it: monolithicSparse and streamOptimized (VMware's Virtual Disk Format 5.0).

What is in several files can point at any file, and is refused; so is a disk that has a parent.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from trivet.engine.disk.field import number, read, require, size_of, unpack
from trivet.engine.disk.model import LARGEST

MAGIC = b"KDMV"
AT_END = 0xFFFFFFFFFFFFFFFF
KINDS = ("monolithicSparse", "streamOptimized")
LARGEST_DESCRIPTOR = 1 << 20
EXTENT = re.compile(r"^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\S+)", re.MULTILINE)
FIELD = re.compile(r"^\s*([A-Za-z]+)\s*=\s*\"?([^\"\n]*)\"?\s*$", re.MULTILINE)


def check(file: BinaryIO) -> int:
    """Tell the size of the disk in bytes. Raises `Unreadable`."""
    head = read(file, 0, 512)
    require(not head.startswith(b"# Disk Desc"), "its data is in other files, which would be read from this host")
    require(head[:4] == MAGIC, "it does not begin like one")
    version = number("<I", head, 4)
    require(version in (1, 2, 3), f"it has version {version}")
    capacity, grain, offset, sectors = unpack("<QQQQ", head, 12)
    directory = number("<Q", head, 56)
    require(number("<I", head, 44) == 512, "its tables have an impossible size")
    require(capacity and offset and sectors, "its data is in other files, which would be read from this host")
    require(0 < grain <= 1 << 17 and grain & (grain - 1) == 0, "its grains have an impossible size")
    if directory == AT_END:
        _footer(file, head)
    else:
        _whole(file, directory * 512, capacity, grain * number("<I", head, 44))
    require(sectors * 512 <= LARGEST_DESCRIPTOR, "its descriptor is too large")
    _descriptor(read(file, offset * 512, sectors * 512))
    return capacity * 512


def _footer(file: BinaryIO, head: bytes) -> None:
    """Hold the header at the end, which counts, against the one at the beginning."""
    end = size_of(file) - 1536
    require(end > 512, "it is truncated")
    footer = read(file, end + 512, 512)
    require(footer[:4] == MAGIC, "it is truncated")
    same = footer[:56] == head[:56]
    require(same, "its header and its footer contradict each other")
    require(number("<Q", footer, 56) * 512 < end, "it is truncated")


def _whole(file: BinaryIO, directory: int, capacity: int, covered: int) -> None:
    """Refuse a file that ends before a grain its tables name begins: QEMU would read zeros there."""
    require(0 < covered <= 512 << 17 and capacity <= LARGEST // 512, "its tables have an impossible size")
    count = -(-capacity // covered)
    tables = unpack(f"<{count}I", read(file, directory, count * 4))
    last = 0
    for table in filter(None, tables):
        last = max(last, *unpack("<512I", read(file, table * 512, 2048)))
    require(last * 512 < size_of(file), "it is truncated")


def _descriptor(raw: bytes) -> None:
    text = raw.partition(b"\0")[0].decode("latin-1")
    fields = {key.lower(): value.strip() for key, value in FIELD.findall(text)}
    kind = fields.get("createtype", "")
    require(kind in KINDS, f"it is of type {kind[:40] or 'unknown'}; {' and '.join(KINDS)} are read")
    require("parentfilenamehint" not in text.lower(), "it has a parent, which would be read from this host")
    require(fields.get("parentcid", "ffffffff").lower() == "ffffffff", "it has a parent, which is not in it")
    extents = EXTENT.findall(text)
    require(extents == ["SPARSE"], "its data is in other files, which would be read from this host")
