"""Which versions of Docker's API are spoken, and what is said to those who want another."""

from __future__ import annotations

import os
import re

from trivet.base.error import InvalidArgument

NEWEST = "1.50"
OLDEST = "1.40"
FLOOR = "1.24"  # what the setting can go down to: older clients expect other shapes
SETTING = "DOCKER_MIN_API_VERSION"  # dockerd's own name for it
ENGINE = "28.2.2"  # what clients that compare engine versions are told: the release that speaks NEWEST
BUILDKIT = "v0.22.0"  # likewise, the BuildKit within that release


class VersionRefused(InvalidArgument):
    """A version this engine doesn't speak, in Docker's words."""


class BadMinimum(InvalidArgument):
    """A setting that names no version this engine could go down to."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{SETTING} cannot be {text[:20]!r}: it is a version from {FLOOR} to {NEWEST}", hint=f"unset {SETTING}"
        )


def oldest() -> str:
    """Tell the oldest version that is accepted: OLDEST unless the engine's environment says otherwise.

    Raises `BadMinimum`.
    """
    text = os.environ.get(SETTING, "") or OLDEST
    if not re.fullmatch(r"1\.[0-9]{1,3}", text) or not _parts(FLOOR) <= _parts(text) <= _parts(NEWEST):
        raise BadMinimum(text)
    return text


def check(text: str) -> None:
    """Raise `VersionRefused` unless `text` ("1.41") is a version between the oldest and NEWEST."""
    if _parts(text) < _parts(oldest()):
        raise VersionRefused(
            f"client version {text} is too old. Minimum supported API version is {oldest()}, "
            "please upgrade your client to a newer version"
        )
    if _parts(text) > _parts(NEWEST):
        raise VersionRefused(f"client version {text} is too new. Maximum supported API version is {NEWEST}")


def at_least(text: str, wanted: str) -> bool:
    """Tell whether a request of version `text` ("" for none: the newest) may expect what came with `wanted`."""
    return _parts(text or NEWEST) >= _parts(wanted)


def _parts(text: str) -> tuple[int, ...]:
    return tuple(int(part[:9] or 0) for part in text.split("."))
