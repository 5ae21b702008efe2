"""Owners that change places, and whom an image calls how."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trivet.base.error import InvalidArgument
from trivet.engine.instance.person import NoSuchPerson, numbers
from trivet.isolation import sharing
from trivet.isolation.belonging import EVERYBODY, exchanged
from trivet.isolation.plan import Mine, Mount

IDS = st.integers(0, 70000)


@given(disk=IDS, inside=st.integers(0, 65535), first=st.sampled_from([0, 100000]))
@example(disk=0, inside=0, first=0)
@example(disk=65535, inside=0, first=100000)
@example(disk=65536, inside=65535, first=100000)
def test_two_change_places(disk: int, inside: int, first: int) -> None:
    """The owner is the user inside and the other way round, all others are who they were, nobody is two."""
    size = 65536 if first else EVERYBODY
    ranges = exchanged(disk, inside, first, size)
    shown = {disk: inside, inside: disk if disk < size else None}
    for asked in {disk, inside, 0, 1, disk - 1, disk + 1, inside - 1, inside + 1, 65535}:
        met = [each for each in ranges if 0 <= asked - each.container_id < each.size]
        found = [each.host_id + asked - each.container_id for each in met]
        place = shown.get(asked, asked if 0 <= asked < size else None)
        assert found == ([] if place is None else [first + place]), asked
    assert sum(each.size for each in ranges) == size
    for one, next_one in pairwise(ranges):
        assert one.container_id + one.size <= next_one.container_id
    assert len({each.host_id for each in ranges}) == len(ranges) <= 5


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """An image's /etc."""
    (tmp_path / "passwd").write_text("root:x:0:0:::\nbroken\napp:x:500:600:::\nevil:x:-1:0::\n")
    (tmp_path / "group").write_text("root:x:0:\nstaff:x:50:app\n")
    return tmp_path


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("", (0, 0)),
        ("app", (500, 600)),
        ("500", (500, 600)),
        ("7", (7, 0)),
        ("app:staff", (500, 50)),
        ("app:9", (500, 9)),
        ("7:staff", (7, 50)),
    ],
)
def test_whom_an_image_knows(etc: Path, user: str, found: tuple[int, int]) -> None:
    """Names and numbers are those of the image's files, as the launcher reads them."""
    assert numbers(user, lambda: etc) == found


@pytest.mark.parametrize("user", ["nobody", "evil", "broken", "app:wheel"])
def test_whom_it_does_not_know(etc: Path, user: str) -> None:
    """A name that isn't there, or has no number, is refused."""
    with pytest.raises(NoSuchPerson, match=user):
        numbers(user, lambda: etc)


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "long"])
def test_a_hostile_image(etc: Path, tmp_path: Path, kind: str) -> None:
    """Whatever an image has there instead of a file: nothing outside is read, and nobody waits."""
    (etc / "passwd").unlink()
    match kind:
        case "link":
            (etc / "passwd").symlink_to("/etc/passwd")
        case "pipe":
            os.mkfifo(etc / "passwd")
        case "directory":
            (etc / "passwd").mkdir()
        case "long":
            (etc / "passwd").write_bytes(b"x" * (2 << 20) + b"\nnobody:x:1:1::\n")
    with pytest.raises(NoSuchPerson):
        numbers("nobody", lambda: etc)


def test_a_machine_has_no_user(tmp_path: Path) -> None:
    """A machine with a system of its own has users that the engine doesn't know: nothing can be theirs."""
    shared = Mount(kind="bind", source=str(tmp_path), target="/v", mine=Mine(uid=1, gid=1))
    with pytest.raises(InvalidArgument, match="cannot be mine"):
        sharing.check("machine", (shared,))
