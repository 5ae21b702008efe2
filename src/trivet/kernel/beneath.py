"""Opening a path as if a directory were the root: nothing in it leads out (openat2(2))."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_OPENAT2 = 437
_HOW = struct.Struct("=QQQ")
_NO_MAGIC_LINKS, _IN_ROOT = 0x02, 0x10
_libc = ctypes.CDLL(None, use_errno=True)


def open_inside(root: Path, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` below `root`; links, also absolute ones and those that change meanwhile, end inside of it.

    An `OSError` carries `path` as its filename.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = ctypes.create_string_buffer(_HOW.pack(flags | os.O_CLOEXEC, 0, _NO_MAGIC_LINKS | _IN_ROOT), _HOW.size)
        result = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_long(directory),
            os.fsencode(path),
            ctypes.byref(how),
            ctypes.c_size_t(_HOW.size),
        )
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return int(result)
    finally:
        os.close(directory)
