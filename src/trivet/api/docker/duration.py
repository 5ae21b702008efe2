"""Times as Docker spells them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from trivet.base.clock import parse_time
from trivet.base.error import InvalidArgument

NEVER = "0001-01-01T00:00:00Z"


def moment(text: str) -> str:
    """Spell a time, or the one that means never."""
    return text or NEVER


def seconds(text: str) -> int:
    """Read RFC 3339 as whole Unix seconds; "" is 0."""
    if text.endswith("Z"):
        return int(datetime.fromisoformat(text[:19] + "+00:00").timestamp())
    return nanoseconds(text) // 1_000_000_000


def nanoseconds(text: str) -> int:
    """Read Unix seconds with up to nine decimals, exactly, RFC 3339 or a duration; "" and 0 are 0."""
    if match := re.fullmatch(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?", text):
        return int(match[1]) * 1_000_000_000 + int((match[2] or "0").ljust(9, "0"))
    try:
        return parse_time(text)
    except InvalidArgument:
        raise InvalidArgument(f'invalid value for "since": {text!r}') from None


def human(passed: float) -> str:
    """Say a duration roughly: `About a minute`, `3 hours`."""
    whole = int(passed)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(passed / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, name in (
        (48, 1, "hours"),
        (24 * 14, 24, "days"),
        (24 * 60, 168, "weeks"),
        (24 * 730, 720, "months"),
    ):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{hours // 24 // 365} years"


def since(text: str) -> float:
    """Tell the seconds that have passed since a time."""
    return datetime.now(UTC).timestamp() - seconds(text)
