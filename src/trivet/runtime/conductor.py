"""What a launch asks for on its way: control groups, hooks, somebody who takes its terminal or its listener."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from trivet.base.error import InvalidArgument, Unavailable
from trivet.oci import runtime as oci
from trivet.runtime import enter, netdevice, plan

StateOf = Callable[[int], oci.State]


class SocketUnusable(Unavailable):
    """A socket of the caller's that nobody listens at."""

    def __init__(self, what: str, path: str, error: OSError) -> None:
        super().__init__(f"cannot hand the {what} over at {path}: {error.strerror or error}")


class Conductor:
    """Answers one launch. `master` is the terminal's other side, unless there is a console socket to send it to."""

    def __init__(
        self,
        profile: oci.Seccomp | None,
        state: StateOf,
        *,
        console: Path | None = None,
        join: Callable[[int], None] | None = None,
        hooks: Callable[[int], None] | None = None,
        joined: Callable[[int], None] | None = None,
        devices: Callable[[int], None] | None = None,
        maps: Callable[[int], None] | None = None,
    ) -> None:
        self._profile = profile
        self._state = state
        self._console = console
        self._points = {
            plan.MAPS: maps,
            plan.JOIN: join,
            plan.HOOKS: hooks,
            enter.JOINED: joined,
            netdevice.MOVE: devices,
        }
        self.master: int | None = None

    def __call__(self, said: str, pid: int, descriptor: int | None) -> None:
        """Do what is to be done at the point `said`."""
        if said == "console" and descriptor is not None:
            self._take_console(descriptor)
        elif said == "listener" and descriptor is not None:
            self._send_listener(pid, descriptor)
        elif (act := self._points.get(said)) is not None:
            act(pid)

    def _take_console(self, master: int) -> None:
        if self._console is None:
            self.master = os.dup(master)
        else:
            _send("terminal", str(self._console), b"/dev/ptmx", master)

    def _send_listener(self, pid: int, listener: int) -> None:
        """Send the listener with the state of the container's process (runtime-spec, config-linux.md)."""
        profile = self._profile or oci.Seccomp(default_action="")
        message = {
            "ociVersion": oci.VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": profile.listener_metadata,
            "state": self._state(pid),
        }
        _send("seccomp listener", profile.listener_path, msgspec.json.encode(message), listener)


def check_console(process: oci.Process | None, console: Path | None, *, detached: bool) -> None:
    """Refuse a terminal that nobody would hold, and a console socket that nothing comes to."""
    terminal = process is not None and process.terminal
    if terminal and detached and console is None:
        raise InvalidArgument("a detached program with a terminal needs --console-socket")
    if console is not None and not (terminal and detached):
        raise InvalidArgument("--console-socket is for a detached program with a terminal")


def _send(what: str, path: str, message: bytes, descriptor: int) -> None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(10)
            connection.connect(path)
            socket.send_fds(connection, [message], [descriptor])
    except OSError as error:
        raise SocketUnusable(what, path, error) from error
