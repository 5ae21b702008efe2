"""An instance's log, from the files its monitor writes."""

from __future__ import annotations

import msgspec

POLL = 0.05  # seconds between looks at a log that grows


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a log, and how. Times are Unix nanoseconds, 0 for no bound; tail -1 is everything."""

    follow: bool = False
    tail: int = -1
    since: int = 0
    until: int = 0
    timestamps: bool = False
    stdout: bool = True
    stderr: bool = True
