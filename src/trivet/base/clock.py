"""Times as the API spells them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import lru_cache

from trivet.base.error import InvalidArgument

UNITS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}


def now_ns() -> int:
    """Return Unix time in nanoseconds."""
    return time.time_ns()


def rfc3339(time_ns: int) -> str:
    """Spell Unix nanoseconds as RFC 3339 in UTC with nine digits; 0 is the empty string."""
    if not time_ns:
        return ""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse_time(text: str) -> int:
    """Read RFC 3339, Unix seconds, or a duration before now ("10m", "1h30m"); "" is 0. Returns nanoseconds.

    Raises `InvalidArgument`.
    """
    if not text:
        return 0
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return int(float(text) * 1e9)
    if re.fullmatch(r"(\d+[smhd])+", text):
        return now_ns() - sum(int(count) * UNITS[unit] for count, unit in re.findall(r"(\d+)([smhd])", text))
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        raise InvalidArgument(f"{text!r} is not a time", hint="2026-01-31T12:00:00Z, 1769860800 or 10m") from None
    return int(moment.astimezone(UTC).timestamp() * 1e9)
