"""Doing something in another network namespace, in this thread alone."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """Be in the network namespace of an open namespace file: sockets made meanwhile belong to it for good.

    Only the calling thread moves (setns(2)). One that can't come back would do all its later work in the wrong
    place: that ends the program.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(descriptor)
        try:
            yield
        finally:
            try:
                _enter(home)
            except OSError:
                os.abort()
    finally:
        os.close(home)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"network namespace {descriptor}")
