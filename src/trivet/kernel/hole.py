"""Holes in files: room given back to the disk in the middle of a file (fallocate(2))."""

from __future__ import annotations

import ctypes

_libc = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


def punch(descriptor: int, start: int, length: int) -> bool:
    """Give back the whole blocks of a part of a file, which reads as zeros then; False if it can't be done here."""
    mode = ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE)
    done = _libc.fallocate64(ctypes.c_int(descriptor), mode, ctypes.c_int64(start), ctypes.c_int64(length))
    return bool(done == 0)
