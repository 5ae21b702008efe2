"""Starting a monitor that outlives us (`spawn`), or a task that is waited for (`run`)."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable

from trivet.launch.channel import Channel, Frame
from trivet.launch.failure import LaunchError, LaunchTimeout, launch_error
from trivet.launch.frame import Type
from trivet.launch.launcher import (
    MOUNTS_FD,
    adopt,
    launcher_descriptor,
    launcher_key,
    move_up,
    reap,
    reap_sometimes,
    start,
)
from trivet.launch.operation import Operation, encode
from trivet.launch.task import Completed, run

__all__ = [
    "Completed",
    "LaunchError",
    "LaunchTimeout",
    "launch_error",
    "launcher_descriptor",
    "reap",
    "run",
    "spawn",
]

SETUP_TIMEOUT = 120.0


Meanwhile = Callable[[Callable[[], bool]], None]
"""What is done while a monitor sets up: it is given a question, whether the launcher has reported already."""


def spawn(
    operations: list[Operation],
    *,
    timeout: float = SETUP_TIMEOUT,
    meanwhile: Meanwhile | None = None,
    mounts: int | None = None,
) -> Channel:
    """Start a monitor with a plan that has a `Monitor`; it is set up when this returns.

    `mounts` is a descriptor that the launcher gets as MOUNTS_FD. The channel is the one it reported over, and is not
    attached. Raises `LaunchError`, or `LaunchTimeout` after which the monitor may still run: remove it as the driver's
    `release` does.
    """
    reap_sometimes()
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    try:
        report = move_up(theirs.detach())
        try:
            actions = [] if mounts is None else [(os.POSIX_SPAWN_DUP2, mounts, MOUNTS_FD)]
            adopt(start(encode(operations), report, actions, TRIVET_LAUNCHER=launcher_key()))
        finally:
            os.close(report)
        if meanwhile:
            meanwhile(lambda: _said(ours))
        frame = _report(channel, timeout)
        if frame is None:
            raise LaunchError(None, 0, "the monitor ended without a report")
        if frame.type is Type.FAILED:
            raise launch_error(operations, frame.payload)
    except BaseException:
        channel.close()
        raise
    return channel


def _report(channel: Channel, timeout: float) -> Frame | None:
    try:
        return channel.receive(timeout)
    except TimeoutError:
        raise LaunchTimeout("the launcher did not report that the instance is set up in time") from None


def _said(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
