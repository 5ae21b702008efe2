"""Mounting where the engine itself sees it: mount(2), umount2(2), and fsopen(2) where options are many."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

READ_ONLY = 0x1
NO_SET_USER_ID = 0x2
NO_DEVICES = 0x4
NO_EXECUTION = 0x8
BIND = 0x1000
DETACH = 0x2

# the same numbers everywhere: include/uapi/asm-generic/unistd.h
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_CLOEXEC = 1  # of fsopen and fsmount
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_ATTRIBUTE_READ_ONLY = 0x1
_EMPTY_PATH = 0x4  # of move_mount
_HERE = -100  # AT_FDCWD


def mount(source: Path | str, target: Path | str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount `source` at `target`. An `OSError` carries `target` as its filename.

    mount(8) would put a loop device between a file and its mount; the call doesn't (erofs, Linux 6.12).
    """
    sys.audit("trivet.mount", str(target))
    words = [os.fsencode(source), os.fsencode(target), kind.encode()]
    if _libc().mount(*words, ctypes.c_ulong(flags), options.encode() or None):
        _fail(target)


def mount_with(source: Path, target: Path, kind: str, options: Sequence[tuple[str, str]]) -> None:
    """Mount `source` read-only with more options than mount(2) takes, which ends at a page of them.

    A value has 255 bytes at most. An `OSError` carries `target` as its filename.
    """
    context = _call(target, _FSOPEN, kind.encode(), _CLOEXEC)
    try:
        for key, value in (("source", os.fspath(source)), *options):
            _call(target, _FSCONFIG, context, _SET_STRING, key.encode(), os.fsencode(value), 0)
        _call(target, _FSCONFIG, context, _SET_FLAG, b"ro", None, 0)
        _call(target, _FSCONFIG, context, _CREATE, None, None, 0)
        made = _call(target, _FSMOUNT, context, _CLOEXEC, _ATTRIBUTE_READ_ONLY)
    finally:
        os.close(context)
    try:
        sys.audit("trivet.mount", str(target))
        _call(target, _MOVE_MOUNT, made, b"", _HERE, os.fsencode(target), _EMPTY_PATH)
    finally:
        os.close(made)


def unmount(target: Path | str) -> None:
    """Take the mount at `target` out of sight; who uses it keeps it. An `OSError` carries `target` as its filename."""
    sys.audit("trivet.mount", str(target))
    if _libc().umount2(os.fsencode(target), DETACH):
        _fail(target)


def drop(path: Path | str) -> None:
    """Remove a file in which a namespace is kept, and let that go; missing is fine.

    Unmounting comes first: to remove what something is mounted on, the kernel looks through all mounts, in vain.
    """
    try:
        unmount(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):  # nothing is mounted there, or we are nobody: umount(2)
            raise
    with suppress(FileNotFoundError):
        os.unlink(path)


def _call(target: Path, number: int, *words: bytes | int | None) -> int:
    result = _libc().syscall(*(ctypes.c_long(word) if isinstance(word, int) else word for word in (number, *words)))
    if result < 0:
        _fail(target)
    return int(result)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _fail(target: Path | str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(target))
