"""Wire shapes of limits that instances and builds have."""

from __future__ import annotations

import msgspec


class RlimitRequest(msgspec.Struct, frozen=True):
    """One `--ulimit`, -1 unlimited."""

    name: str
    soft: int
    hard: int
