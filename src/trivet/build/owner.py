"""--chown: names and numbers to ids, by the image's own /etc/passwd and /etc/group."""

from __future__ import annotations

from collections.abc import Callable

from trivet.build.error import BuildError

PASSWD, GROUP = "/etc/passwd", "/etc/group"
MOST = 4 << 20  # bytes read of either
_LARGEST = (1 << 32) - 2  # the largest number is "no change" to chown(2)

Lookup = Callable[[str], bytes]
"""Reads a small file of the image; empty if it isn't there."""


def resolve_owner(spec: str, read: Lookup) -> tuple[int, int]:
    """Read `user[:group]`. Raises `BuildError`.

    Without a group it is the user's own, and for a number that number.
    """
    user, _, group = spec.partition(":")
    if _is_number(user):
        uid = own = _number(user, f"user {user}")
    else:
        fields = _find(user, "user", PASSWD, read)
        uid, own = (_number(field, f"user {user}") for field in fields[2:4])
    if not group:
        return uid, own
    return uid, _number(group if _is_number(group) else _find(group, "group", GROUP, read)[2], f"group {group}")


def _find(name: str, kind: str, path: str, read: Lookup) -> list[str]:
    """Find an entry of a user or group list."""
    for line in read(path)[:MOST].decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) >= 4:
            return fields
    raise BuildError(f"--chown: no {kind} {name!r} in {path} of the image", hint="create it in an earlier RUN")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(digits: str, what: str) -> int:
    if not _is_number(digits) or len(digits) > 10 or int(digits) > _LARGEST:
        raise BuildError(f"--chown: the number of {what[:60]} is out of range")
    return int(digits)
