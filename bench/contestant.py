"""A peer that takes part: its account, its results, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from bench.account import Account
from bench.image import MissingProgram
from bench.peers.peer import Peer, PeerFailed
from trivet.base.error import TrivetError


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer needed for one thing, in seconds; percentiles are samples, not interpolations.

    `cpu` is the mean per round of everything the peer runs; None where a round holds more than what is measured.
    """

    samples: list[float]
    median: float
    p10: float
    p95: float
    cpu: float | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """PSS in bytes: `each` is what an idle instance adds beyond its own program, `base` what is there without any."""

    instances: int
    each: float
    base: int


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """What many idle containers were like: seconds, rates per second, bytes (PSS).

    `each` is what one adds beyond its own program, `all` the daemon and its helpers; `left` is what was there
    more than before when all had been removed. What begins with `door` went by Docker's API.
    """

    containers: int
    rate: float
    rate_bridged: float
    twenty: float
    twenty_cpu: float
    idle: int
    requests: float
    each: float
    all: int
    listed: Figures
    door_twenty: float
    door_requests: float
    door_listed: Figures
    removed: float
    left: dict[str, int]


class Result(msgspec.Struct, kw_only=True):
    """Everything measured about one peer; `skipped` says why there is nothing, or nothing more."""

    name: str
    version: str = ""
    skipped: str = ""
    figures: dict[str, Figures] = {}
    memory: Memory | None = None
    crowd: Crowd | None = None


class Contestant:
    """A peer, its account and its results."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.account = Account(peer.name.replace(" ", "-").replace("(", "").replace(")", ""))
        self.result = Result(name=peer.name)

    @property
    def present(self) -> bool:
        """Tell whether it is still taking part."""
        return not self.result.skipped

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let it act: its work goes to its account, and its failure is the end of its taking part."""
        self.account.enter()
        try:
            yield
        except (PeerFailed, MissingProgram, TrivetError, OSError) as error:
            self.result.skipped = str(error) or type(error).__name__

    def open(self) -> None:
        """Get ready, or be skipped."""
        with self.turn():
            self.peer.open(self.account)
            self.result.version = self.peer.version()

    def close(self) -> None:
        """Leave nothing running."""
        self.peer.close()
        self.account.close()
