"""Clients that attach before the start, as Docker's `run` does: they must not miss the first byte."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from trivet.engine.instance.stream import Attach, Stream


@dataclass(frozen=True)
class Expectation:
    """A client's wish; `stream` resolves at the start, or fails with it."""

    streams: Attach
    stream: asyncio.Future[Stream] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def open(self) -> bool:
        """Whether somebody still waits."""
        return not self.stream.done()


def disappoint(expectations: Sequence[Expectation], error: Exception) -> None:
    """Tell those who still wait that there was no start."""
    for each in expectations:
        if each.open:
            each.stream.set_exception(error)
            each.stream.exception()  # whether it is looked at is the client's affair
