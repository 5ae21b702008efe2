"""Starting a monitor that outlives us (`spawn`), or a task that is waited for (`run`)."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from trivet.launch.channel import Channel, Frame
from trivet.launch.failure import LaunchError, LaunchTimeout, launch_error, parse_report
from trivet.launch.frame import Type
from trivet.launch.launcher import adopt, launcher_descriptor, pipe, reap, reap_sometimes, start
from trivet.launch.monitor import connect
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
    directory: Path,
    timeout: float = SETUP_TIMEOUT,
    meanwhile: Meanwhile | None = None,
) -> Channel:
    """Start a monitor with a plan whose `Monitor` names `directory`; it is set up when this returns.

    The channel has had its HELLO and is not attached. Raises `LaunchError`, or `LaunchTimeout` after
    which the monitor may still run: remove it as the driver's `release` does.
    """
    reap_sometimes()
    with contextlib.ExitStack() as stack:
        reading, writing = pipe()
        stack.callback(os.close, reading)
        try:
            pid = start(encode(operations), writing, [])
        finally:
            os.close(writing)
        adopt(pid)
        if meanwhile:
            meanwhile(lambda: bool(select.select([reading], [], [], 0)[0]))
        frame = _read_report(reading, time.monotonic() + timeout)
    if frame is None:
        raise LaunchError(None, 0, "the monitor ended without a report")
    if frame.type is Type.FAILED:
        raise launch_error(operations, frame.payload)
    channel = connect(directory, timeout)
    if channel is None:
        raise LaunchError(None, 0, "the program and its monitor ended at once")
    return channel


def _read_report(descriptor: int, deadline: float) -> Frame | None:
    data = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while (frame := parse_report(data)) is None:
        if not poll.poll(1000 * max(deadline - time.monotonic(), 0)):
            raise LaunchTimeout("the launcher did not report that the instance is set up in time")
        part = os.read(descriptor, 4096)
        if not part:
            return None
        data += part
    return frame
