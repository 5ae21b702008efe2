"""VHD (Virtual Hard Disk Image Format Specification 1.0): fixed and dynamic. Numbers are big-endian."""

from __future__ import annotations

from typing import BinaryIO

from trivet.engine.disk.field import number, read, require, size_of

MAGIC = b"conectix"
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
FOOTER = 512


def check(file: BinaryIO) -> int:
    """Tell the size of the disk in bytes. Raises `Unreadable`."""
    end = size_of(file) - FOOTER
    require(end >= 0, "it is truncated")
    footer = read(file, end, FOOTER)
    require(footer[:8] == MAGIC, "it does not end like one, or it is truncated")
    kind, size = number(">I", footer, 60), number(">Q", footer, 48)
    require(kind != DIFFERENCING, "it has a parent, which would be read from this host")
    require(kind in (FIXED, DYNAMIC), f"it is of the unknown type {kind}")
    require(number(">I", footer, 64) == _sum(footer), "the sum in its footer is wrong")
    if kind == FIXED:
        require(size <= end, "it is truncated")
        require(read(file, 0, 8) != MAGIC, "its header and its footer contradict each other")
        return size
    require(read(file, 0, FOOTER) == footer, "its header and its footer contradict each other")
    require(read(file, number(">Q", footer, 16), 8) == b"cxsparse", "its dynamic header is missing")
    return size


def _sum(footer: bytes) -> int:
    return ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF
