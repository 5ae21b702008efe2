"""The shapes of `trivet capacity`. Bytes, cores, seconds."""

from __future__ import annotations

import msgspec


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one running instance was promised, may have, uses, and will.

    `maximum` 0 is no limit. `allotted` is what it may have now; `elastic` tells whether that changes. `forecast` is the
    peak within the horizon, `stolen` the seconds its threads waited for a processor since the engine watches it.
    """

    id: str
    name: str
    isolation: str
    minimum: int
    maximum: int
    weight: int
    processors: float
    elastic: bool
    allotted: int
    used: int
    forecast: int
    stolen: float
    starved: bool


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Something the engine decided, and why; `word` is admit, warn, refuse, take or give."""

    time: str
    word: str
    id: str
    name: str
    before: int = 0
    after: int = 0
    why: str = ""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's capacity. `shortage` is the probability that more is wanted than there is within `horizon` seconds.

    `promised`, `kept`, `used` and `forecast` are sums over what runs; `room` is what all can have together now.
    `stalled` is the share of the last ten seconds in which something on this host waited for memory.
    """

    memory: int
    reserve: int
    memory_ratio: float
    processors: float
    processor_ratio: float
    tax: float
    room: int
    promised: int
    promised_processors: float
    kept: int
    used: int
    forecast: int
    stolen: float
    shortage: float
    horizon: float
    stalled: float
    shares: list[Share] = []
