"""One thread at a time per thing to be made: a lock for each key, as long as somebody wants it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Locks by key, made on first use and dropped when nobody holds or wants them."""

    def __init__(self) -> None:
        self._own = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._wanted: dict[str, int] = {}

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Wait for one's turn and hold it."""
        with self._own:
            lock = self._locks.setdefault(key, threading.Lock())
            self._wanted[key] = self._wanted.get(key, 0) + 1
        try:
            with lock:
                yield
        finally:
            with self._own:
                self._wanted[key] -= 1
                if not self._wanted[key]:
                    del self._wanted[key], self._locks[key]
