"""VDI, VirtualBox's format, version 1.1. Numbers are little-endian."""

from __future__ import annotations

from typing import BinaryIO

from trivet.engine.disk.field import number, read, require, size_of, unpack
from trivet.engine.disk.model import LARGEST

SIGNATURE = 0xBEDA107F
VERSION = 0x00010001
DYNAMIC, STATIC = 1, 2
BLOCK = 1 << 20
NOBODY = bytes(16)
DISCARDED = 0xFFFFFFFE  # this and the next number: there is no such block


def check(file: BinaryIO) -> int:
    """Tell the size of the disk in bytes. Raises `Unreadable`."""
    head = read(file, 0, 512)
    require(number("<I", head, 0x40) == SIGNATURE, "it does not begin like one")
    version, kind = number("<I", head, 0x44), number("<I", head, 0x4C)
    require(version == VERSION, f"it has version {version >> 16}.{version & 0xFFFF}")
    linked = head[0x1A8:0x1B8] != NOBODY or head[0x1B8:0x1C8] != NOBODY
    require(not linked, "it has a parent, which would be read from this host")
    require(kind in (DYNAMIC, STATIC), f"it is of type {kind}; only disks that need no other are read")
    require(number("<I", head, 0x168) == 512, "its sectors are not of 512 bytes")
    require(number("<I", head, 0x178) == BLOCK, "its blocks are not of 1 MiB")
    size, blocks = number("<Q", head, 0x170), number("<I", head, 0x180)
    require(size <= blocks * BLOCK, "its blocks do not cover its disk")
    place, data = number("<I", head, 0x154), number("<I", head, 0x158)
    require(blocks <= LARGEST // BLOCK, "its map is too large")
    used = [block for block in unpack(f"<{blocks}I", read(file, place, 4 * blocks)) if block < DISCARDED]
    require(not used or data + (max(used) + 1) * BLOCK <= size_of(file), "it is truncated")
    return size
