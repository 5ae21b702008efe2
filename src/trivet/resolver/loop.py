"""Waiting for many sockets at once; selectors and asyncio would take more memory than all else here."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from typing import Protocol

Ready = Callable[[], None]
_SWEEP = 0.25
_MOST_COMPLAINTS = 20  # the log is a file


class HasDescriptor(Protocol):
    """A socket."""

    def fileno(self) -> int:
        """Tell its descriptor."""


class Loop:
    """Calls what is ready; `sweep` is called four times a second while `busy` says that somebody has a deadline."""

    def __init__(self, sweep: Callable[[float], None], busy: Callable[[], bool]) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._sweep, self._busy = sweep, busy
        self._complaints = 0
        self.ended = False

    def read(self, item: HasDescriptor, ready: Ready) -> None:
        """Call `ready` whenever there is something to read; replaces what was to be called before."""
        self._watch(item.fileno(), select.EPOLLIN, ready)

    def write(self, item: HasDescriptor, ready: Ready) -> None:
        """Call `ready` when something can be written."""
        self._watch(item.fileno(), select.EPOLLOUT, ready)

    def forget(self, item: HasDescriptor) -> None:
        """Stop waiting; call before closing."""
        if self._ready.pop(item.fileno(), None):
            self._epoll.unregister(item.fileno())

    def run(self) -> None:
        """Go on until `ended`."""
        last = 0.0
        while not self.ended:
            for descriptor, _ in self._epoll.poll(_SWEEP if self._busy() else -1):
                if ready := self._ready.get(descriptor):
                    self._call(ready)
            now = time.monotonic()
            if now - last >= _SWEEP:
                last = now
                self._sweep(now)

    def _call(self, ready: Ready) -> None:
        """One client's strange bytes must not take the names from all others."""
        try:
            ready()
        except Exception as error:
            if self._complaints < _MOST_COMPLAINTS:
                self._complaints += 1
                sys.excepthook(type(error), error, error.__traceback__)

    def _watch(self, descriptor: int, events: int, ready: Ready) -> None:
        if descriptor in self._ready:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._ready[descriptor] = ready
