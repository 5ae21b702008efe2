"""How much will be used: the peak of one instance, and the probability that all of them want more than there is. Pure.

Soon: what comes of going on as fast as now for a moment.

Peak: the largest of what is used now, the 95th percentile of what was used in the last hour, and the straight line
through the last samples, drawn out to the horizon; never more than the limit.

Shortage: the sum of what all use is taken for a random walk with drift. Mean and deviation of its steps are those of
the last hour; the probability that it lies beyond the room after the horizon's steps is the normal distribution's.
A walk crosses a bound about twice as often as it ends beyond it (the principle of reflection), and crossing is what
hurts, so that it is doubled. Where the limits themselves fit into the room it is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

HORIZON = 300.0
"""Seconds that a forecast looks ahead."""
QUANTILE = 0.95
RECENT = 12
"""Samples that a trend is drawn from."""


MOMENT = 10.0
"""Seconds for which what grows now is expected to go on like that."""


def soon(used: int, rate: float, maximum: int) -> int:
    """Tell what will be used in a moment, if it grows by `rate` bytes a second."""
    found = used + int(max(rate, 0.0) * MOMENT)
    return min(found, maximum) if maximum else found


def peak(history: Sequence[int], interval: float, maximum: int) -> int:
    """Forecast the most that will be used within HORIZON; `history`: samples `interval` seconds apart, the last now."""
    if not history:
        return 0
    ranked = sorted(history)
    usual = ranked[min(int(QUANTILE * len(ranked)), len(ranked) - 1)]
    grown = history[-1] + max(slope(history[-RECENT:]), 0.0) * HORIZON / interval
    found = max(history[-1], usual, int(grown))
    return min(found, maximum) if maximum else found


def slope(samples: Sequence[int]) -> float:
    """Find the slope of the least-squares line, per sample."""
    count = len(samples)
    if count < 3:
        return 0.0
    middle, mean = (count - 1) / 2, sum(samples) / count
    over = sum((place - middle) * (value - mean) for place, value in enumerate(samples))
    return over / sum((place - middle) ** 2 for place in range(count))


def shortage(
    totals: Sequence[int], interval: float, room: int, promised: int | None, horizon: float = HORIZON
) -> float:
    """Estimate the probability that all together want more than `room` within the horizon.

    `promised` is the sum of all limits, None when one has none.
    """
    if promised is not None and promised <= room:
        return 0.0
    if not totals:
        return 0.0
    if totals[-1] > room:
        return 1.0
    steps = [after - before for before, after in pairwise(totals)]
    if len(steps) < 3:
        return 0.0
    count = horizon / interval
    mean = sum(steps) / max(len(steps), RECENT)  # before it was watched, it is taken to have stood still
    variance = sum((step - mean) ** 2 for step in steps) / (len(steps) - 1)
    gap = room - totals[-1] - mean * count
    if variance == 0:
        return 1.0 if gap < 0 else 0.0
    beyond = 0.5 * math.erfc(gap / math.sqrt(2 * variance * count))
    return min(1.0, 2 * beyond)
