"""Reading numbers out of headers that may say anything."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO


class Unreadable(Exception):
    """A header that is refused; the text says why."""


def read(file: BinaryIO, offset: int, count: int) -> bytes:
    """Read exactly `count` bytes. Raises `Unreadable` where the file ends before."""
    if offset < 0 or offset > 1 << 62:
        raise Unreadable("it points outside of itself")
    data = b""
    while len(data) < count and (piece := os.pread(file.fileno(), count - len(data), offset + len(data))):
        data += piece
    if len(data) < count:
        raise Unreadable("it is truncated")
    return data


def unpack(form: str, data: bytes, offset: int = 0) -> tuple[int, ...]:
    """Take numbers out of what was read (struct(3)'s notation)."""
    return struct.unpack_from(form, data, offset)


def number(form: str, data: bytes, offset: int) -> int:
    """Take out one number."""
    return int(struct.unpack_from(form, data, offset)[0])


def size_of(file: BinaryIO) -> int:
    """Tell how long the file is."""
    return os.fstat(file.fileno()).st_size


def require(condition: object, problem: str) -> None:
    """Raise `Unreadable` unless the condition holds."""
    if not condition:
        raise Unreadable(problem)
