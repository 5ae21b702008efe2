"""Wire shapes of health checks. Durations in seconds."""

from __future__ import annotations

from typing import Literal

import msgspec


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How to find out whether an instance works.

    `test` is Docker's: ["CMD", program, arguments...], ["CMD-SHELL", line], ["NONE"], or [] for the image's.
    What is 0 is the image's, or else 30 s, 30 s, none, 5 s and 3 tries.
    """

    test: list[str] = []
    interval: float = 0
    timeout: float = 0
    start_period: float = 0
    start_interval: float = 0
    retries: int = 0


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One check: when (RFC 3339), its exit status (-1: it took too long or could not be run) and its last words."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How an instance is: `failing` counts failures in a row, `log` holds the last five checks."""

    status: Literal["starting", "healthy", "unhealthy"] = "starting"
    failing: int = 0
    log: list[Probe] = []
