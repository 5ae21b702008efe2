"""Devices as people type them."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

from trivet.client.schema import DeviceRequest


def device(text: str) -> DeviceRequest:
    """Read SRC, SRC:DST, SRC:ACCESS or SRC:DST:ACCESS, as Docker does."""
    source, *more = text.split(":")
    if not source.startswith("/") or len(more) > 2:
        raise ArgumentTypeError(f"{text!r} is not a device; write /dev/NAME[:/dev/TARGET][:rwm]")
    access = more.pop() if more and not more[-1].startswith("/") else "rwm"
    if not access or not set(access) <= set("rwm"):
        raise ArgumentTypeError(f"{access!r} is not an access; write some of r, w and m")
    return DeviceRequest(source=source, target=more[0] if more else "", access=access)


def rate_of(number: Callable[[str], int]) -> Callable[[str], tuple[str, int]]:
    """Read DEVICE:RATE."""

    def rate(text: str) -> tuple[str, int]:
        path, colon, limit = text.rpartition(":")
        if not colon or not path.startswith("/"):
            raise ArgumentTypeError(f"{text!r} is not a device and a rate; write /dev/NAME:RATE")
        return path, number(limit)

    return rate
