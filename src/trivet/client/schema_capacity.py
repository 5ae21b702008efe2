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


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Instances that are thought of: `count` of them, each with these limits, as `trivet run` has them."""

    memory: int = 0
    memory_reservation: int = 0
    cpus: float = 0.0
    cpu_shares: int = 0
    count: int = 1


class PlanStep(msgspec.Struct, frozen=True, kw_only=True):
    """One further instance: whether it would be let in (admit, warn or refuse) and why, and the sums with it."""

    number: int
    word: str
    why: str
    promised: int
    kept: int
    processors: float
    shortage: float


class CapacityPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What would come of them; `fits` of these would be let in, at least so many if `endless`."""

    steps: list[PlanStep]
    fits: int
    endless: bool
    expected: int


class CapacityMoment(msgspec.Struct, frozen=True, kw_only=True):
    """How things stood at a `time` (Unix seconds): sums in bytes, the stated probability, and whether it was short."""

    time: float
    room: int
    promised: int
    used: int
    forecast: int
    shortage: float
    short: bool


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """Statements of about one probability: how many, their mean, and the share after which memory was short."""

    count: int
    stated: float
    observed: float


class CapacityHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The last hour, and how good the stated probabilities were: `judged` of them since the engine started."""

    moments: list[CapacityMoment]
    judged: int
    brier: float
    table: list[Reliability]


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's capacity. `shortage` is the probability that more is wanted than there is within `horizon` seconds.

    `promised`, `kept`, `used` and `forecast` are sums over what runs; `room` is what all can have together now.
    `stalled` is the share of the last ten seconds in which something on this host waited for memory. `merged` is what
    the kernel saves by keeping like pages once (KSM), on the whole host.
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
    merged: int = 0
    shares: list[Share] = []
