"""Persistent tap devices, for virtual machines (see the kernel's networking/tuntap)."""

from __future__ import annotations

import fcntl
import os
import struct

_SET_INTERFACE = 0x400454CA
_SET_PERSISTENT = 0x400454CB
_TAP, _NO_PACKET_INFO, _HEADER, _EXCLUSIVE = 0x0002, 0x1000, 0x4000, 0x8000
_IFREQ = struct.Struct("16sH22x")


def create_tap(name: str) -> None:
    """Create a tap device that stays when its creator closes it. A taken name is an `OSError` (EBUSY)."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            request = _IFREQ.pack(name.encode(), _TAP | _NO_PACKET_INFO | _EXCLUSIVE)
            fcntl.ioctl(descriptor, _SET_INTERFACE, request)
            fcntl.ioctl(descriptor, _SET_PERSISTENT, 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or name) from error


def open_tap(name: str) -> int:
    """Open a persistent tap device of our network namespace as a machine does; the descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _SET_INTERFACE, _IFREQ.pack(name.encode(), _TAP | _NO_PACKET_INFO | _HEADER))
    except OSError as error:
        os.close(descriptor)
        raise OSError(error.errno, error.strerror, name) from error
    return descriptor
