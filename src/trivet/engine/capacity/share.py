"""Dividing what there is by weight: nobody gets less than a floor or more than a ceiling. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody must have, could do with at most, and counts for."""

    floor: int
    ceiling: int
    weight: int


def divide(pool: int, claims: Sequence[Claim]) -> list[int]:
    """Give everybody as much as their weight times a level that is the same for all, within floor and ceiling.

    The level is as high as the pool allows. Floors are given even when the pool is too small for them; the parts' sum
    is at most the larger of both.
    """
    low, high = 0.0, max((claim.ceiling / claim.weight for claim in claims), default=0.0)
    if sum(_parts(high, claims)) <= pool:
        return [claim.ceiling for claim in claims]
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(_parts(middle, claims)) <= pool else (low, middle)
    return _parts(low, claims)


_STEPS = 64
"""Each halves what is uncertain: after so many it is less than a byte."""


def _parts(level: float, claims: Sequence[Claim]) -> list[int]:
    return [min(max(claim.floor, int(level * claim.weight)), claim.ceiling) for claim in claims]
