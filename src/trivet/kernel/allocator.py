"""The C library's allocator, so far as a process that lives for months has to speak to it (mallopt(3), malloc_trim(3)).

Left alone it makes eight arenas for each processor, one for a thread or two, and each keeps what was freed in
it: an engine that has unpacked one image holds six megabytes more for ever.
"""

from __future__ import annotations

import ctypes

_ARENA_MAX = -8
_libc = ctypes.CDLL(None)


def limit_arenas(count: int) -> None:
    """Let threads share `count` arenas; call it before there are any. A C library without them is left alone."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(ctypes.c_int(_ARENA_MAX), ctypes.c_int(count))


def trim() -> None:
    """Give back to the kernel what is free; a millisecond or two, in which other threads wait when they allocate."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))
