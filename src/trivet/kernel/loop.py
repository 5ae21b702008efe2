"""Loop devices: files as block devices (loop(4)). One goes by itself when its last user does."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

CONTROL = Path("/dev/loop-control")
BLOCKS = Path("/sys/block")
_GET_FREE, _CONFIGURE, _SET_CAPACITY = 0x4C82, 0x4C0A, 0x4C07
_AUTOCLEAR = 4
_FLAGS_AT, _INFO = 52, 232  # of struct loop_info64
_CONFIG = struct.Struct(f"=II{_INFO}s64x")
_ATTEMPTS = 32


def attach(file: Path) -> tuple[Path, int]:
    """Give a file a block device, the one it has if it has one: its path, and a descriptor that keeps it until used.

    Two devices of one file would not know of one another's writes. An `OSError` carries the file as its filename.
    """
    known = find(file)
    if known:
        return known, os.open(known, os.O_RDWR | os.O_CLOEXEC)
    info = bytearray(_INFO)
    struct.pack_into("=I", info, _FLAGS_AT, _AUTOCLEAR)
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for _ in range(_ATTEMPTS):
            control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
            try:
                device = Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
            finally:
                os.close(control)
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _CONFIGURE, _CONFIG.pack(backing, 0, bytes(info)))
            except OSError as error:
                os.close(descriptor)
                if error.errno == errno.EBUSY:  # somebody else was faster
                    continue
                raise OSError(error.errno, error.strerror, str(file)) from error
            return device, descriptor
        raise OSError(errno.EBUSY, "no loop device is free", str(file))
    finally:
        os.close(backing)


def find(file: Path) -> Path | None:
    """Find the block device that a file has."""
    wanted = str(file.resolve())
    for block in BLOCKS.glob("loop*/loop/backing_file"):
        try:
            if block.read_text().rstrip("\n") == wanted:
                return Path("/dev", block.parent.parent.name)
        except OSError:  # it went just now
            continue
    return None


def grow(device: Path) -> None:
    """Let a device notice that its file is larger."""
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _SET_CAPACITY, 0)
    finally:
        os.close(descriptor)
