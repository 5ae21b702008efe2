"""Records for the runtime's front (launch/native/front_record.c): numbers are u32, little-endian; a text is its length
and its bytes, several things are their count and they; a condition is what a file says from one word to another."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path


def number(value: int) -> bytes:
    """Encode a number."""
    return struct.pack("<I", value)


def text(value: str | bytes) -> bytes:
    """Encode a text."""
    raw = os.fsencode(value)
    return number(len(raw)) + raw


def listed(items: Iterable[bytes]) -> bytes:
    """Encode several things."""
    found = list(items)
    return number(len(found)) + b"".join(found)


def stamped(path: str) -> bytes:
    """Encode a file that is to be as it is: by its time of change and size."""
    status = Path(path).stat()
    return text(path) + text(f"{status.st_mtime_ns} {status.st_size}")


def whole(path: str) -> bytes:
    """Encode the condition that a file says what it says."""
    return text(path) + text("") + text("") + text(Path(path).read_bytes())


def rights() -> list[bytes]:
    """Encode the conditions that a process has the capabilities and limits of this one."""
    status = Path("/proc/self/status").read_bytes()
    capabilities = status[status.index(b"CapInh") : status.index(b"NoNewPrivs")]
    between = text("/proc/self/status") + text("CapInh") + text("NoNewPrivs") + text(capabilities)
    return [between, whole("/proc/self/limits")]
