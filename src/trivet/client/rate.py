"""Rates as people write them, and as options of an endpoint: `trivet.rate_in: 10mbit`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_RATE = re.compile(r"(\d+(?:\.\d+)?)(|bit|kbit|mbit|gbit)")
_UNITS = {"": 1, "bit": 1, "kbit": 1000, "mbit": 10**6, "gbit": 10**9}
SLOWEST = 8000
OPTIONS = {"trivet.rate_in": "rate_in", "trivet.rate_out": "rate_out"}


def read(text: str) -> int:
    """Read bits per second: 512kbit, 10mbit, 1gbit, or 0 for no limit. Raises `ValueError`."""
    match = _RATE.fullmatch(text.lower())
    if match is None:
        raise ValueError(f"{text!r} is not a rate, such as 512kbit, 10mbit or 1gbit")
    found = int(float(match[1]) * _UNITS[match[2] or ""])
    if found and found < SLOWEST:
        raise ValueError(f"{text!r} is less than {SLOWEST} bit per second")
    return found


def options(wanted: Mapping[str, str]) -> dict[str, int]:
    """Read an endpoint's options; the rates by the names of `EndpointRequest`. Raises `ValueError`."""
    for key in wanted:
        if key not in OPTIONS:
            raise ValueError(f"endpoint option {key} is not known: {' and '.join(OPTIONS)} are")
    return {OPTIONS[key]: read(str(text)) for key, text in wanted.items()}


def shown(rate_in: int, rate_out: int) -> dict[str, str]:
    """Write rates as options."""
    return {key: str(rate) for key, rate in zip(OPTIONS, (rate_in, rate_out), strict=True) if rate}
