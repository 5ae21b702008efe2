"""Which pages of a mapping a process has written to: /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).

Linux 6.7 answers with ranges (PAGEMAP_SCAN); before that there is a word per page.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator

Ranges = list[tuple[int, int]]

_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
_ARGUMENT = struct.Struct("12Q")
_REGION = struct.Struct("3Q")
_FILE, _PRESENT, _SWAPPED = 1 << 2, 1 << 3, 1 << 4
_MOST = 4096  # regions at a time
_WORD_PRESENT, _WORD_SWAPPED, _WORD_FILE = 1 << 63, 1 << 62, 1 << 61


def written(pagemap: int, start: int, end: int) -> Ranges:
    """List the ranges of a private mapping that are the process's own by now, not the file's.

    `pagemap` is an open /proc/PID/pagemap. Raises OSError.
    """
    try:
        return list(_scan(pagemap, start, end))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            raise
    return list(_read(pagemap, start, end))


def _scan(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    room = ctypes.create_string_buffer(_REGION.size * _MOST)
    while start < end:
        # Not the file's, and in memory or swapped out.
        words = (start, end, 0, ctypes.addressof(room), _MOST, 0, _FILE, _FILE, _PRESENT | _SWAPPED, _FILE)
        argument = bytearray(_ARGUMENT.pack(_ARGUMENT.size, 0, *words))
        count = fcntl.ioctl(pagemap, _SCAN, argument)
        for place in range(count):
            first, last, _ = _REGION.unpack_from(room, place * _REGION.size)
            yield first, last
        start = _ARGUMENT.unpack(argument)[4]  # where the walk ended


def _read(pagemap: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    page = mmap.PAGESIZE
    words = array.array("Q", os.pread(pagemap, (end - start) // page * 8, start // page * 8))
    begun = -1
    for number, word in enumerate(words):
        own = word & (_WORD_PRESENT | _WORD_SWAPPED) and not word & _WORD_FILE
        if own and begun < 0:
            begun = number
        elif not own and begun >= 0:
            yield start + begun * page, start + number * page
            begun = -1
    if begun >= 0:
        yield start + begun * page, start + len(words) * page
