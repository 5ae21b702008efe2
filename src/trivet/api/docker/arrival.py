"""What comes by a request of its own, under an id that its client made up; who needs it may ask before it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from trivet.base.error import NotFound

PATIENCE = 5.0  # seconds between a question and what it is about
T = TypeVar("T")


class Arrivals(Generic[T]):
    """Things by their ids, there or awaited."""

    def __init__(self, missing: str) -> None:
        """`missing` is what is said of an id that doesn't come."""
        self._missing = missing
        self._things: dict[str, asyncio.Future[T]] = {}

    @contextmanager
    def open(self, key: str, thing: T) -> Iterator[T]:
        """Keep a thing while the block runs."""
        waited = self._things.get(key)
        if waited is None or waited.done():
            waited = self._things[key] = asyncio.get_running_loop().create_future()
        waited.set_result(thing)
        try:
            yield thing
        finally:
            if self._things.get(key) is waited:
                del self._things[key]

    async def find(self, key: str) -> T:
        """Wait for a thing. Raises `NotFound`."""
        waited = self._things.get(key)
        if waited is None:
            waited = self._things[key] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(asyncio.shield(waited), PATIENCE)
        except TimeoutError:
            if self._things.get(key) is waited and not waited.done():
                del self._things[key]
            raise NotFound(self._missing.format(key[:64])) from None
