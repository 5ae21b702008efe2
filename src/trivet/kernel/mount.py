"""Mounting where the engine itself sees it: mount(2) and umount2(2), nothing else."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from pathlib import Path

READ_ONLY = 0x1
DETACH = 0x2


def mount(source: Path, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount `source` at `target`. An `OSError` carries `target` as its filename.

    mount(8) would put a loop device between a file and its mount; the call doesn't (erofs, Linux 6.12).
    """
    words = [os.fsencode(source), os.fsencode(target), kind.encode()]
    if _libc().mount(*words, ctypes.c_ulong(flags), options.encode() or None):
        _fail(target)


def unmount(target: Path) -> None:
    """Take the mount at `target` out of sight; who uses it keeps it. An `OSError` carries `target` as its filename."""
    if _libc().umount2(os.fsencode(target), DETACH):
        _fail(target)


def drop(path: Path) -> None:
    """Remove a file in which a namespace is kept, and let that go; missing is fine."""
    try:
        path.unlink(missing_ok=True)
        return
    except OSError as error:
        if error.errno != errno.EBUSY:  # what something is mounted on can't be removed: unlink(2)
            raise
    try:
        unmount(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # somebody else was faster: umount(2)
            raise
    path.unlink(missing_ok=True)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _fail(target: Path) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(target))
