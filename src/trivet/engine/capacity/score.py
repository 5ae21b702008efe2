"""Were the stated probabilities of a shortage good ones? What was said is held against what came of it. Pure.

A statement is of the next horizon; it has come true if memory was short at any time in it. Brier's score is the mean
square of the difference: 0 is a prophet's, 0.25 that of who always says one half. The table says how often it was
short after about 10 % was said, after about 20 %, and so on.
"""

from __future__ import annotations

from collections import deque

import msgspec

BINS = 10


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """The statements between two probabilities: how many, the mean of what was said, and the share that came true."""

    count: int
    stated: float
    observed: float


class Score:
    """Statements that wait for their horizon to pass, and the sums of those that have."""

    def __init__(self, horizon: float) -> None:
        self._horizon = horizon
        self._open: deque[tuple[float, float]] = deque()
        self._short = -1.0  # when it was short last
        self._counts = [0] * BINS
        self._stated = [0.0] * BINS
        self._observed = [0] * BINS
        self._squares = 0.0

    def add(self, moment: float, probability: float, *, short: bool) -> None:
        """Add what is said at a moment (seconds of a monotonic clock), and whether memory is short then."""
        while self._open and moment > self._open[0][0] + self._horizon:
            self._settle(*self._open.popleft())
        if short:
            self._short = moment
        self._open.append((moment, probability))

    @property
    def count(self) -> int:
        """Count the statements whose horizon has passed."""
        return sum(self._counts)

    @property
    def brier(self) -> float:
        """Return their score; 0 when there is none."""
        return self._squares / self.count if self.count else 0.0

    def table(self) -> list[Bin]:
        """Return the reliability by what was said, without what never was."""
        rows = zip(self._counts, self._stated, self._observed, strict=True)
        return [Bin(count=count, stated=said / count, observed=came / count) for count, said, came in rows if count]

    def _settle(self, moment: float, probability: float) -> None:
        came = moment <= self._short <= moment + self._horizon
        place = min(int(probability * BINS), BINS - 1)
        self._counts[place] += 1
        self._stated[place] += probability
        self._observed[place] += came
        self._squares += (probability - came) ** 2
