"""The records of capacity: what was promised, what is, and what is done about the difference. Bytes and seconds."""

from __future__ import annotations

from enum import StrEnum

import msgspec

WEIGHT = 1024  # as cpu.shares counts


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine may give away.

    `memory` and `processors` are promised up to their ratio, without end where that is 0; `reserve` bytes are left to
    the host. `tax` is the part of idle memory that can be taken when others need it, 0 to 1.
    With `merge` like pages of machines are kept once.
    """

    memory: int
    processors: float
    memory_ratio: float = 0.0
    processor_ratio: float = 0.0
    reserve: int = 0
    tax: float = 0.75
    merge: bool = False

    @property
    def usable(self) -> int:
        """What instances can have together."""
        return max(self.memory - self.reserve, 0)


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance may count on: `minimum` is kept for it, `maximum` its limit, `weight` decides when it is short.

    0 is none: no memory kept, no limit, no processors promised.
    """

    id: str
    name: str
    level: str
    minimum: int = 0
    maximum: int = 0
    weight: int = WEIGHT
    processors: float = 0.0

    @property
    def elastic(self) -> bool:
        """Tell whether what it may have can lie between two bounds; of others nothing is taken."""
        return 0 < self.minimum < self.maximum


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One instance as it is.

    `held` is what it could fill without asking, `used` what it can't do without, `resident` what the host has given it;
    `allotted` what it may have (0: no bound but its limit). `soon` and `peak` are forecasts of `used`. A `starved` one
    waits for memory; a `deaf` one doesn't give back what it was told to, and it isn't counted on. `waited` are
    the seconds in which its threads could have run, had there been a processor.
    """

    promise: Promise
    held: int
    used: int
    resident: int
    allotted: int = 0
    soon: int = 0
    peak: int = 0
    starved: bool = False
    deaf: bool = False
    waited: float = 0.0


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The machine as it is: `stalled` is the share of the last ten seconds in which something waited for memory."""

    memory: int
    available: int
    stalled: float = 0.0


class Word(StrEnum):
    """What was decided."""

    ADMIT = "admit"
    WARN = "warn"
    REFUSE = "refuse"
    TAKE = "take"
    GIVE = "give"


class Verdict(msgspec.Struct, frozen=True):
    """Whether an instance may start, and why, in a sentence without its full stop."""

    word: Word
    why: str


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what an instance may have, and why."""

    word: Word
    id: str
    name: str
    before: int
    after: int
    why: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done. `room` is what all instances can have; `short` what they want and won't get."""

    room: int
    short: int
    actions: tuple[Action, ...]
