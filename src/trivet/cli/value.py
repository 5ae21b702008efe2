"""Values people type: sizes, durations, moments, pairs. argparse names the option in the error."""

from __future__ import annotations

import re
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

SIZES = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

# Compiled with the first use: most commands are given none of these.
_SIZE = r"(\d+(?:\.\d+)?)\s*([bkmgtp]?)(?:i?b)?"
_DURATION = r"(?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h|d))+"
_STEP = r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)"
_MOMENT = r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?"


def size(text: str) -> int:
    """Read bytes: 512, 64k, 512m, 1.5g (powers of 1024)."""
    match = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not a size; write 512m or 1g")
    return int(float(match[1]) * (1 << SIZES[match[2].lower()]))


def size_or_unlimited(text: str) -> int:
    """Read bytes, or -1."""
    return -1 if text == "-1" else size(text)


def duration(text: str) -> float:
    """Read seconds: 10, 10s, 1m30s, 500ms."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(_DURATION, text):
        raise ArgumentTypeError(f"{text!r} is not a duration; write 10s or 1m30s")
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(_STEP, text))


def seconds(text: str) -> int:
    """Read whole seconds."""
    return round(duration(text))


def moment(text: str) -> str:
    """Read a point in time, as RFC 3339: itself, Unix seconds, or a duration ago."""
    if re.fullmatch(_MOMENT, text):
        return text if "T" in text else f"{text}T00:00:00Z"
    if re.fullmatch(r"\d{9,}(\.\d+)?", text):
        return rfc3339(float(text))
    try:
        return rfc3339(time.time() - duration(text))
    except ArgumentTypeError:
        raise ArgumentTypeError(f"{text!r} is not a time; write 10m, 2026-01-31T12:00:00Z or Unix seconds") from None


def rfc3339(moment: float) -> str:
    """Write Unix seconds as RFC 3339 in UTC with microseconds."""
    fraction = round(moment % 1 * 1_000_000) % 1_000_000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{fraction:06d}Z"


def natural(text: str) -> int:
    """Read a whole number, not negative."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def count_or_all(text: str) -> int | None:
    """Read a number of lines, or `all` (also -1)."""
    return None if text in ("all", "-1") else natural(text)


def cores(text: str) -> float:
    """Read a number of CPUs, such as 1.5."""
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", text) or float(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a number of CPUs; write 1.5")
    return float(text)


def boolean(text: str) -> bool:
    """Read true or false."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "1")


def mask(text: str) -> int:
    """Read a umask: octal, as 0027. Raises ArgumentTypeError."""
    if not text.isdecimal() or set(text) - set("01234567") or int(text, 8) > 0o777:
        raise ArgumentTypeError(f"{text!r} is not an octal number from 0 to 0777")
    return int(text, 8)


def pair(text: str) -> tuple[str, str]:
    """Read KEY=VALUE; both must be there."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def label(text: str) -> tuple[str, str]:
    """Read KEY[=VALUE]."""
    key, _, value = text.partition("=")
    if not key:
        raise ArgumentTypeError(f"{text!r} has no key; write KEY=VALUE")
    return key, value


def word(choices: Mapping[str, T], what: str) -> Callable[[str], T]:
    """Make a reader of one of `choices`."""

    def read(text: str) -> T:
        if text not in choices:
            raise ArgumentTypeError(f"{text!r} is not {what}; choose from {', '.join(choices)}")
        return choices[text]

    return read


def collect(filters: list[tuple[str, str]] | None) -> dict[str, list[str]]:
    """Gather repeated `--filter KEY=VALUE` by key."""
    gathered: dict[str, list[str]] = {}
    for key, value in filters or []:
        gathered.setdefault(key, []).append(value)
    return gathered
