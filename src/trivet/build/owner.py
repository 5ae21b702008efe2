"""--chown: names and numbers to ids, by the image's own /etc/passwd and /etc/group."""

from __future__ import annotations

from collections.abc import Callable

from trivet.build.error import BuildError

MOST = 4 << 20  # bytes read of a passwd or group file
_LARGEST = (1 << 32) - 2  # the largest number is "no change" to chown(2)

Lookup = Callable[[str], bytes]
"""Reads a small file of the image; empty if it isn't there."""


def resolve_owner(spec: str, read: Lookup) -> tuple[int, int]:
    """Read `user[:group]`; without a group its number is the user's. Raises `BuildError`."""
    user, colon, group = spec.partition(":")
    uid = _identity(user, "user", "/etc/passwd", read)
    gid = _identity(group, "group", "/etc/group", read) if colon and group else uid
    return uid, gid


def _identity(name: str, kind: str, path: str, read: Lookup) -> int:
    if name.isascii() and name.isdigit():
        return _number(name, f"{kind} {name[:40]}")
    for line in read(path)[:MOST].splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[0] == name.encode("utf-8", "surrogateescape"):
            return _number(fields[2].decode("ascii", "replace"), f"{kind} {name[:40]}")
    raise BuildError(f"--chown: no {kind} {name!r} in {path} of the image", hint="create it in an earlier RUN")


def _number(digits: str, what: str) -> int:
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10 or int(digits) > _LARGEST:
        raise BuildError(f"--chown: the number of {what} is out of range")
    return int(digits)
