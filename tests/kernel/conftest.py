"""A real launcher, with everything it started gone after the test."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
from tests.kernel.world import world as world
from tests.runtime import runtime as runtime

from trivet.kernel.rtnetlink import set_link
from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.launch.monitor import Ending, parse_exit, read_process
from trivet.launch.operation import Exec, Monitor, Operation, Spawn, Wait
from trivet.launch.spawn import reap, spawn

PATH = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)


class Heard(msgspec.Struct):
    """Everything a client was told until the monitor closed the connection."""

    output: bytes = b""
    error_output: bytes = b""
    exits: list[Ending] = []
    failures: list[bytes] = []
    types: list[Type] = []


class Launch:
    """Starts monitors in directories of the test's own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.directories: list[Path] = []
        self.before = reap()

    def directory(self) -> Path:
        """Make a new monitor directory."""
        directory = self.base / f"m{len(self.directories)}"
        directory.mkdir()
        self.directories.append(directory)
        return directory

    def plan(self, directory: Path, *program: str, **spawning: int) -> list[Operation]:
        """A plan that logs and waits for GO."""
        monitor = Monitor(str(directory), log=str(directory / "log"))
        return [monitor, Spawn(**spawning), Wait(), Exec(program, PATH)]  # type: ignore[arg-type]

    def start(self, *program: str, directory: Path | None = None, **spawning: int) -> Channel:
        """Start a program, attached and running."""
        directory = directory or self.directory()
        channel = spawn(self.plan(directory, *program, **spawning), timeout=20)
        channel.attach()
        channel.go()
        return channel

    def shell(self, script: str, *, stdin: int = 1, **spawning: int) -> Channel:
        """Start a shell script, attached and running."""
        return self.start("sh", "-c", script, directory=None, stdin=stdin, **spawning)

    def release(self) -> None:
        """Kill what is left and wait for the monitors to see it."""
        for directory in self.directories:
            process = read_process(directory)
            if process is not None and process.lives():
                with contextlib.suppress(ProcessLookupError):
                    process.signal(signal.SIGKILL)
        deadline = time.monotonic() + 5
        while reap() > self.before and time.monotonic() < deadline:
            time.sleep(0.01)


def listen(channel: Channel, timeout: float = 20) -> Heard:
    """Collect frames until the end of the stream."""
    heard = Heard(exits=[], failures=[], types=[])
    with channel:
        while (frame := channel.receive(timeout)) is not None:
            heard.types.append(frame.type)
            if frame.type is Type.STDOUT:
                heard.output += frame.payload
            elif frame.type is Type.STDERR:
                heard.error_output += frame.payload
            elif frame.type is Type.EXIT:
                heard.exits.append(parse_exit(frame.payload))
            elif frame.type is Type.FAILED:
                heard.failures.append(frame.payload)
    return heard


@pytest.fixture
def launch(short_path: Path) -> Iterator[Launch]:
    """Real monitors, in the last resort killed."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    launch = Launch(short_path)
    yield launch
    launch.release()


class Listen(Protocol):
    """Collects frames until the end of the stream."""

    def __call__(self, channel: Channel, timeout: float = 20) -> Heard: ...


@pytest.fixture(name="listen")
def _listen() -> Listen:
    """The function that collects frames until the end of the stream."""
    return listen


CLONE_NEWNET = 0x40000000


@pytest.fixture
def own_network() -> Iterator[None]:
    """A network namespace of the test's own that stands for the host: nothing of the machine is touched.

    Only the test's thread is moved, and with it what it spawns.
    """
    if os.geteuid() != 0:
        pytest.skip("not root")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    assert libc.unshare(CLONE_NEWNET) == 0
    try:
        set_link("lo", up=True)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")  # may be inherited from the machine
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)
