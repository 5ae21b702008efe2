"""A stock of spare namespaces: starts take from it, and it is filled again behind their backs.

It is empty until the first instance has started: an engine that only waits keeps nothing ready.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from trivet.base.error import TrivetError
from trivet.engine.instance.owner import Owners
from trivet.engine.network.namespace import BEFORE
from trivet.isolation.plan import Owner
from trivet.isolation.spare import Spare, make, sweep

MOST, FEW = 8, 4

log = logging.getLogger(__name__)


class Stock:
    """Spares of one engine, at most `MOST`; filled up again when only `FEW` are left. `directory` is its own."""

    def __init__(self, owners: Owners, directory: Path) -> None:
        sweep(directory)
        self._owners = owners
        self._directory = directory
        self._spares: deque[Spare] = deque()
        self._filler = ThreadPoolExecutor(1, "stock")
        self._lock = threading.Lock()
        self._filling = self._closed = False
        self._starting = 0

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Say that an instance is being set up; in one thread only."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1

    def take(self, *, cheap: bool = False) -> Spare | None:
        """Give a spare away, if one is there. Its range stays reserved until `Owners.forget`.

        `cheap` is who has namespaces made on the way, by its own launcher: sooner with a spare, but for more work in
        all. Where several are being set up it is the work that counts, and it gets none.
        """
        if cheap and self._starting > 1:
            return None
        try:
            return self._spares.popleft()
        except IndexError:
            return None

    def refill(self) -> None:
        """Have spares made if there are few; returns at once."""
        with self._lock:
            if self._filling or self._closed or len(self._spares) > FEW:
                return
            self._filling = True
            self._filler.submit(self._fill)

    def close(self) -> None:
        """Let go of what is there; nothing is made any more."""
        with self._lock:
            self._closed = True
        self._filler.shutdown()
        while spare := self.take():
            spare.close()

    def _fill(self) -> None:
        owners: list[Owner] = []
        try:
            while len(owners) + len(self._spares) < MOST:
                owners.append(self._owners.reserve(self._directory))
            self._spares.extend(make(owners, BEFORE, self._directory))
        except (TrivetError, OSError) as error:  # the next start makes its own, or says what is wrong
            for owner in owners:
                self._owners.forget(owner)
            log.warning("cannot make namespaces ahead: %s", error)
        finally:
            self._filling = False
