"""Keep the engine small: what work has needed goes back to the host as soon as there is a moment's rest."""

from __future__ import annotations

import asyncio
import time

from trivet.kernel.allocator import limit_arenas, trim
from trivet.kernel.mapping import forget

ARENAS = 2  # of malloc: Python runs one thread at a time, and what hashes and unpacks beside it hardly allocates
REST = 2.0  # seconds between looks
WORK = 0.05  # of processor: less hasn't left anything worth the walk


def prepare() -> None:
    """Arrange for little memory; call it before there are threads."""
    limit_arenas(ARENAS)


def _give_back() -> None:
    """Free memory first; then the code that beginning, or the work, needed and rest doesn't."""
    trim()
    forget()


async def tidy() -> None:
    """Give memory back after work, again and again until cancelled; not during it, when it would be wanted back."""
    trimmed = seen = 0.0
    while True:
        await asyncio.sleep(REST)
        before, seen = seen, time.process_time()
        if seen - trimmed > WORK and seen - before < WORK:
            await asyncio.to_thread(_give_back)
            trimmed = time.process_time()
