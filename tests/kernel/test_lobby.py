"""The mount namespace that containers come from: next to nothing of the host's is in there."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trivet.kernel import lobby
from trivet.kernel.mount import BIND, drop, mount, unmount
from trivet.launch.launcher import MOUNTS_FD
from trivet.launch.operation import (
    Become,
    Builtin,
    Fork,
    Hold,
    Identity,
    JoinPath,
    Monitor,
    Operation,
    Root,
    Spawn,
    Wait,
)
from trivet.launch.spawn import LaunchError, spawn
from trivet.runtime.namespace import FLAGS

if TYPE_CHECKING:
    from tests.kernel.conftest import Launch, Listen

pytestmark = pytest.mark.needs("root")

SHOWN = ("/proc", "/sys", "/dev")
MAP = f"0 {0x7F00_0000} 65536\n"


@pytest.fixture
def mounts() -> Iterator[int]:
    """A namespace's descriptor, out of the way of what the launcher expects."""
    number = lobby.make("/tmp", SHOWN)
    yield number
    os.close(number)


def seen(descriptor: int) -> tuple[list[str], list[str]]:
    """What lies in its root, and where something is mounted."""
    found: list[tuple[list[str], list[str]]] = []

    def look() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        assert not library.unshare(0x200), os.strerror(ctypes.get_errno())
        assert not library.setns(descriptor, FLAGS["mount"]), os.strerror(ctypes.get_errno())
        lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
        found.append((sorted(each.name for each in Path("/").iterdir()), [line.split()[4] for line in lines]))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def test_hardly_anything_is_in_it(short_path: Path) -> None:
    """Neither the host's disk nor what is mounted before or afterwards, whatever our umask is; we stay where we are."""
    places = [short_path / "before", short_path / "after"]
    for place in places:
        place.mkdir()
    before = os.umask(0o077)
    try:
        mount(Path("/dev"), places[0], "", BIND)
        descriptor = lobby.make("/tmp", SHOWN)
        mount(Path("/dev"), places[1], "", BIND)
        try:
            assert seen(descriptor) == (["dev", "proc", "sys", "tmp"], ["/", "/proc", "/sys", "/dev"])
        finally:
            os.close(descriptor)
    finally:
        os.umask(before)
        for place in places:
            with suppress(OSError):
                unmount(place)
    assert short_path.is_dir()


def plan(launch: Launch, path: str, fork: Fork) -> tuple[list[Operation], Path]:
    """A program with users of its own looks for a path before anything is mounted for it."""
    directory = launch.directory()
    user = directory / "user"
    steps: list[Operation] = [
        Monitor(str(directory), log=str(directory / "log")),
        Hold(str(user), "", MAP, MAP),
        fork,
        JoinPath(str(user), FLAGS["user"]),
        Spawn(flags=FLAGS["mount"] | FLAGS["pid"]),
        *(Identity(0, 0), Become(), Root("/"), Wait(), Builtin("stat", (path,))),
    ]
    return steps, user


@pytest.mark.parametrize(("path", "there"), [("/etc", False), ("/dev/null", True)])
def test_who_comes_from_there_never_sees_the_host(
    launch: Launch, listen: Listen, mounts: int, path: str, there: bool
) -> None:
    """Not even before its own root is mounted; who isn't sent there sees it until then."""
    for fork, given, found in ((Fork(MOUNTS_FD), mounts, there), (Fork(), None, True)):
        steps, user = plan(launch, path, fork)
        try:
            channel = spawn(steps, timeout=30, mounts=given)
            channel.attach()
            channel.go()
            heard = listen(channel, 30)
        finally:
            drop(user)
        assert [ending.code == 0 for ending in heard.exits] == [found], heard


@pytest.mark.parametrize("fork", [Fork(MOUNTS_FD), Fork(MOUNTS_FD + 1)])
def test_a_descriptor_that_is_not_there_is_refused(launch: Launch, fork: Fork) -> None:
    """A plan that names one nobody gave, or another than the launcher's, doesn't start from the host's instead."""
    steps, user = plan(launch, "/etc", fork)
    try:
        with pytest.raises(LaunchError, match="no mount namespace"):
            spawn(steps, timeout=30)
    finally:
        drop(user)
