"""Which versions of Docker's API are spoken, and what is said to those who want another."""

from __future__ import annotations

from trivet.base.error import InvalidArgument

NEWEST = "1.50"
OLDEST = "1.24"
ENGINE = "28.2.2"  # what clients that compare engine versions are told: the release that speaks NEWEST


class VersionRefused(InvalidArgument):
    """A version this engine doesn't speak, in Docker's words."""


def check(text: str) -> None:
    """Raise `VersionRefused` unless `text` ("1.41") is a version between OLDEST and NEWEST."""
    if _parts(text) < _parts(OLDEST):
        raise VersionRefused(
            f"client version {text} is too old. Minimum supported API version is {OLDEST}, "
            "please upgrade your client to a newer version"
        )
    if _parts(text) > _parts(NEWEST):
        raise VersionRefused(f"client version {text} is too new. Maximum supported API version is {NEWEST}")


def at_least(text: str, wanted: str) -> bool:
    """Tell whether a request of version `text` ("" for none: the newest) may expect what came with `wanted`."""
    return _parts(text or NEWEST) >= _parts(wanted)


def _parts(text: str) -> tuple[int, ...]:
    return tuple(int(part or 0) for part in text.split("."))
