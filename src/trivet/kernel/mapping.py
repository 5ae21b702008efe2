"""The process's own mappings of files: libraries' code, most of it needed once, to begin (proc(5), madvise(2))."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

_DONTNEED = 4
_HEAD = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \S+ +/")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def clean() -> Iterator[tuple[int, int]]:
    """Find mapped files of which every page is as in the file: begin and length.

    Those that may not be written aren't enough: what the dynamic linker has relocated was written before it was
    protected (RELRO), and would be lost.
    """
    found = None
    for line in Path("/proc/self/smaps").read_bytes().splitlines():
        if line.startswith(b"Anonymous:") and found:
            begin, end = (int(one, 16) for one in found.groups())
            if line.split()[1] == b"0":
                yield begin, end - begin
        elif b"-" in line[:20]:
            found = _HEAD.match(line)


def forget() -> None:
    """Let go of clean pages of files. They stay in the page cache; a first touch maps them again, 16 at a time."""
    for begin, length in list(clean()):
        _libc.madvise(begin, length, _DONTNEED)
