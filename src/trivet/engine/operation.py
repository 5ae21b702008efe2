"""One thing at a time per object: a lock that says who holds it and for what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Locks:
    """Locks by object key, made on first use and dropped when nobody holds or wants them."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._actions: dict[str, str] = {}
        self._wanted: dict[str, int] = {}

    @asynccontextmanager
    async def hold(self, key: str, action: str) -> AsyncIterator[None]:
        """Hold the object's lock during `action` (a verb in the -ing form, shown to those who ask)."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._wanted[key] = self._wanted.get(key, 0) + 1
        try:
            async with lock:
                self._actions[key] = action
                try:
                    yield
                finally:
                    del self._actions[key]
        finally:
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._wanted[key], self._locks[key]

    def action(self, key: str) -> str:
        """Tell what is being done to the object right now; "" for nothing."""
        return self._actions.get(key, "")
