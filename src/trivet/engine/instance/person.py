"""Which numbers an image's user has. The launcher looks a user up inside, later; a mount's owners are wanted before."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from trivet.base.error import InvalidArgument
from trivet.kernel.beneath import open_inside

_LARGEST = 1 << 20  # bytes of an image's passwd that are looked at


class NoSuchPerson(InvalidArgument):
    """A user whom the image doesn't know by this name."""

    def __init__(self, user: str) -> None:
        super().__init__(f"user {user!r} is not in the image, so no files can belong to it", hint="say its number")


def numbers(user: str, find: Callable[[], Path]) -> tuple[int, int]:
    """Tell user and group of "name|uid[:group|gid]", "" for root's; `find` shows the image's /etc.

    Raises `NoSuchPerson`.
    """
    name, colon, group = user.partition(":")
    if not name:
        return 0, 0
    row = next((row for row in _rows(find(), "passwd", 4) if name in (row[0], row[2])), None)
    if row is None and not name.isdigit():
        raise NoSuchPerson(user)
    uid, gid = int(row[2]) if row else int(name), int(row[3]) if row else 0
    if not colon or not group:
        return uid, gid
    found = next((row for row in _rows(find(), "group", 3) if group in (row[0], row[2])), None)
    if found is None and not group.isdigit():
        raise NoSuchPerson(user)
    return uid, int(found[2]) if found else int(group)


def _rows(etc: Path, name: str, count: int) -> Iterator[list[str]]:
    """Read a file of an image, which may hold anything, or be anything."""
    try:
        descriptor = open_inside(etc, name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return
    with os.fdopen(descriptor, errors="replace") as file:
        for line in file.read(_LARGEST).splitlines():
            row = line.split(":")
            if len(row) >= count and all(part.isdigit() for part in row[2:count]):
                yield row
