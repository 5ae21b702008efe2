"""What was used in the last hour, a sample every few seconds: what forecasts are made from."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

INTERVAL = 5.0
KEPT = 720
RECENT = 12
"""Samples whose largest has to be passed by what grows: who goes up and down as ever needs nothing new."""


class History:
    """The use of each instance, and of all together; the largest of an interval counts."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[int]] = {}
        self._totals: deque[int] = deque(maxlen=KEPT)
        self._edge = 0.0
        self._last: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def add(self, moment: float, used: dict[str, int]) -> None:
        """Add what is used at a moment (seconds of a monotonic clock), by instance."""
        fresh = moment >= self._edge
        if fresh:
            self._edge = moment + INTERVAL
        for key in [key for key in self._samples if key not in used]:
            self._shift(-self._last[key][1])
            del self._samples[key], self._last[key], self._rates[key]
        self._shift(sum(value for key, value in used.items() if key not in self._samples))
        for key, value in used.items():
            self._rates[key] = self._rate(key, moment, value)
            _put(self._samples.setdefault(key, deque(maxlen=KEPT)), value, fresh)
            self._last[key] = (moment, value)
        _put(self._totals, sum(used.values()), fresh)

    def of(self, key: str) -> Sequence[int]:
        """Return one instance's samples, INTERVAL seconds apart."""
        return list(self._samples.get(key, ()))

    def rate(self, key: str) -> float:
        """Return how fast one instance's use grows beyond what it lately was, in bytes a second, smoothed."""
        return self._rates.get(key, 0.0)

    def _rate(self, key: str, moment: float, value: int) -> float:
        if key not in self._last or moment <= self._last[key][0]:
            return self._rates.get(key, 0.0)
        then, before = self._last[key]
        if value >= before:
            before = max(before, min(value, max(list(self._samples[key])[-RECENT:])))
        return (self._rates.get(key, 0.0) + (value - before) / (moment - then)) / 2

    def totals(self) -> Sequence[int]:
        """Return the samples of the sum, as if who runs now had always run: a start is no growth."""
        return list(self._totals)

    def _shift(self, amount: int) -> None:
        if amount:
            self._totals = deque((max(total + amount, 0) for total in self._totals), maxlen=KEPT)


def _put(samples: deque[int], value: int, fresh: bool) -> None:
    if fresh or not samples:
        samples.append(value)
    else:
        samples[-1] = max(samples[-1], value)
