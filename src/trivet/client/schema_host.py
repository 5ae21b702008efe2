"""Wire shapes of what a host is, has, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import msgspec


class LevelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What one level can do here; `missing` is empty when it works."""

    level: str
    available: bool
    acceleration: str
    unshared: list[str]
    missing: list[str]
    hint: str


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """`system info`."""

    version: str
    id: str
    root: str
    run_directory: str
    pid: int
    host: dict[str, Any]
    levels: list[LevelInfo]
    snapshotter: str
    instances: dict[str, int]
    images: int
    warnings: list[str] = []


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `system df`."""

    kind: str
    total: int
    active: int
    size: int
    reclaimable: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `system check`: what is wrong and what `--repair` would do (or did)."""

    object: str
    problem: str
    repair: str
    repaired: bool = False
