"""What a monitor's directory and a cgroup tell about a program's life, and how to end it for sure."""

from __future__ import annotations

import os
import signal
import socket
import struct
from pathlib import Path
from typing import Literal

import msgspec

from trivet.kernel.cgroup import Group
from trivet.launch import monitor
from trivet.launch.channel import Channel
from trivet.launch.monitor import Ending, Failure, Process

_MANY = 32
_CREDENTIALS = struct.Struct("3i")  # struct ucred


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen; `process` is the program while it lives, `ending` how it ended."""

    word: Literal["created", "running", "exited", "gone", "lost"]
    process: Process | None = None
    ending: Ending | Failure | None = None


def observe(directory: Path) -> Life:
    """Look at a monitor's directory."""
    ending = monitor.read_ending(directory)
    if ending is not None:
        return Life(word="exited", ending=ending)
    channel = monitor.connect(directory)
    if channel is None:
        return _unattended(directory)
    with channel:
        hello = channel.hello
    process = monitor.read_process(directory)
    if hello is None or process is None or hello.state == "exited":
        return _unattended(directory)
    return Life(word="running" if hello.state == "running" else "created", process=process)


def _unattended(directory: Path) -> Life:
    """Nobody answers: it ended just now, the monitor was killed, or nothing was ever started."""
    ending = monitor.read_ending(directory)
    if ending is not None:
        return Life(word="exited", ending=ending)
    began = any((directory / name).exists() for name in ("monitor.sock", "pid"))
    return Life(word="lost" if began else "gone")


def monitor_of(directory: Path) -> int:
    """Tell which process is the monitor of a directory. Raises OSError where none lives."""
    with Channel.connect(directory / "monitor.sock").detach() as connection:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[0])


def end(directory: Path) -> None:
    """Kill the monitor of a directory, if one lives: its program is dead, nobody else will ask for its end."""
    try:
        os.kill(monitor_of(directory), signal.SIGKILL)
    except OSError:
        pass


def clear(directory: Path, group: Group) -> None:
    """Kill all processes of a group and the monitors of a directory, and remove the group. Idempotent."""
    empty = group.vanish()  # mostly: everybody has ended
    if not empty:
        group.kill()
    for place in (directory, *_added(directory)):
        end(place)
    if not empty:
        group.kill()  # what a monitor was about to spawn when it was ended
        group.remove()


def _added(directory: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(directory / "exec")]
    except FileNotFoundError:
        return []


def sweep(directory: Path) -> None:
    """Remove what is left of programs added earlier whose monitors have gone; only once there are many."""
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except FileNotFoundError:
        return
    for place in (directory / name for name in (names if len(names) >= _MANY else ())):
        if monitor.read_ending(place) is not None and monitor.connect(place) is None:
            for name in ("monitor.sock", "pid", "exit", "new"):
                (place / name).unlink(missing_ok=True)
            place.rmdir()
