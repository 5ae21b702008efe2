"""Files in memory that hold a guest's memory: sealed, they can be shared and nobody changes them any more.

Only a sealed memfd keeps copies apart for sure. QEMU 7.2 opens the file of a private mapping for
writing, and a balloon in one guest would punch holes into everybody's (hw/virtio/virtio-balloon.c,
ram_block_discard_range).
"""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 16
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def make(name: str, size: int = 0) -> int:
    """Make an empty file in memory, `size` bytes of holes; its descriptor."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    return descriptor


def seal(descriptor: int) -> None:
    """Let nobody change the file any more; EBUSY while somebody could still."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def copy(source: int, target: int) -> None:
    """Copy a file to an empty one, its holes left out."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in _extents(source, size):
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            start += os.sendfile(target, source, start, end - start)


def checksum(descriptor: int) -> int:
    """Sum up what is in a file and where, against accidents. A hole is as good as zeros, which it becomes when read."""
    size, total, done = os.fstat(descriptor).st_size, 0, 0
    for start, end in _extents(descriptor, size):
        for place in range(max(done, start - start % _BLOCK), end, _BLOCK):
            block = os.pread(descriptor, _BLOCK, place)
            if block != bytes(len(block)):
                total = zlib.crc32(block, zlib.crc32(place.to_bytes(8, "little"), total))
        done = end + -end % _BLOCK
    return total


def path_of(descriptor: int) -> str:
    """Name a descriptor of this process so that another one can open it."""
    return str(Path("/proc", str(os.getpid()), "fd", str(descriptor)))


def _extents(source: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        yield start, end
