"""VHDX ([MS-VHDX]): the region table leads to the metadata, which says how large the disk is."""

from __future__ import annotations

import uuid
from typing import BinaryIO, NamedTuple

from trivet.engine.disk.field import number, read, require, size_of, unpack

MAGIC = b"vhdxfile"
REGION_TABLES = (192 << 10, 256 << 10)
TABLE = 64 << 10
MOST_ENTRIES = 2047
METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
PARENT = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
BLOCKS = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
HAS_PARENT = 2
PRESENT = (6, 7)
LARGEST_TABLE = 128 << 20


class Region(NamedTuple):
    """A part of the file."""

    offset: int
    length: int


def check(file: BinaryIO) -> int:
    """Tell the size of the disk in bytes. Raises `Unreadable`."""
    require(read(file, 0, 8) == MAGIC, "it does not begin like one")
    one, other = (_regions(file, table) for table in REGION_TABLES)
    require(one == other, "its two region tables contradict each other")
    require({METADATA, BLOCKS} <= one.keys(), "its regions are incomplete")
    items = _items(file, one[METADATA].offset)
    require(PARENT not in items, "it has a parent, which would be read from this host")
    require({PARAMETERS, DISK_SIZE} <= items.keys(), "its metadata is incomplete")
    block, flags = unpack("<II", read(file, items[PARAMETERS], 8))
    require(not flags & HAS_PARENT, "it has a parent, which would be read from this host")
    _whole(file, one[BLOCKS], block)
    return number("<Q", read(file, items[DISK_SIZE], 8), 0)


def _regions(file: BinaryIO, offset: int) -> dict[bytes, Region]:
    """Read a region table."""
    table = read(file, offset, TABLE)
    require(table[:4] == b"regi", "its region table is missing")
    count = number("<I", table, 8)
    require(count <= MOST_ENTRIES, "its region table is too long")
    found: dict[bytes, Region] = {}
    for entry in range(16, 16 + 32 * count, 32):
        require(table[entry : entry + 16] not in found, "its region table contradicts itself")
        found[table[entry : entry + 16]] = Region(*unpack("<QI", table, entry + 16))
    return found


def _whole(file: BinaryIO, table: Region, block: int) -> None:
    """Refuse a file that ends before a block its table names does: QEMU would read zeros there."""
    require(1 << 20 <= block <= 256 << 20, "its blocks have an impossible size")
    require(table.length <= LARGEST_TABLE, "its table of blocks is too large")
    entries = unpack(f"<{table.length // 8}Q", read(file, table.offset, table.length // 8 * 8))
    last = max((entry >> 20 << 20 for entry in entries if entry & 7 in PRESENT), default=0)
    require(not last or last + block <= size_of(file), "it is truncated")


def _items(file: BinaryIO, offset: int) -> dict[bytes, int]:
    """List where the metadata's items are."""
    table = read(file, offset, TABLE)
    require(table[:8] == b"metadata", "its metadata is missing")
    (count,) = unpack("<H", table, 10)
    require(count <= MOST_ENTRIES, "its metadata is too long")
    found: dict[bytes, int] = {}
    for entry in range(32, 32 + 32 * count, 32):
        key = table[entry : entry + 16]
        require(key not in found, "its metadata contradicts itself")
        found[key] = offset + number("<I", table, entry + 16)
    return found
