"""Adding a program to one that runs: its monitor makes a copy of itself, which serves whoever asked.

The client connects as to any monitor, and says ENTER, with a plan that has no `Monitor` and joins process 0: the
monitor's own program, of which nobody else can be so sure. Whether it will is up to the monitor: one of another
launcher, of an earlier release say, or of a program that has ended, won't, and nothing has happened then.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from trivet.launch.channel import Channel, Frame
from trivet.launch.failure import LaunchError, LaunchTimeout, launch_error
from trivet.launch.frame import Type
from trivet.launch.launcher import launcher_key
from trivet.launch.operation import Operation, encode

PROGRAM = 0
"""The process to join."""
SOCKET = "monitor.sock"
PATIENCE = 120.0
_NO_OPERATION = b"\xff\xff\xff\xff"


def request(operations: list[Operation]) -> bytes:
    """Build the payload of ENTER."""
    return launcher_key().encode() + encode(operations)


def refused(hello: bytes, answer: Frame | None) -> bool:
    """Tell from what a monitor said first, and then, whether nothing has happened, and nothing will.

    One that hangs up is an older one, which doesn't know the word, unless it said that it does.
    """
    if b'"state":"running"' not in hello:
        return True
    if answer is None:
        return b'"enters":true' not in hello
    return answer.type is Type.EXIT or (answer.type is Type.FAILED and answer.payload.startswith(_NO_OPERATION))


def failure(operations: list[Operation], answer: Frame | None) -> LaunchError:
    """Turn an answer that isn't READY or STARTED into the error."""
    if answer is None:
        return LaunchError(None, 0, "the monitor ended without a report")
    return launch_error(operations, answer.payload)


def add(directory: Path, operations: list[Operation]) -> Channel | None:
    """Have the monitor of a directory set a further program up, which waits for `Channel.go`; None if it won't.

    Raises `LaunchError` for an operation that failed, and `LaunchTimeout`.
    """
    try:
        channel = Channel.connect(directory / SOCKET)
    except OSError:
        return None
    try:
        hello, answer = _ask(channel, request(operations))
        if refused(hello, answer):
            channel.close()
            return None
        if answer is None or answer.type is not Type.READY:
            raise failure(operations, answer)
    except BaseException:
        channel.close()
        raise
    return channel


def _ask(channel: Channel, payload: bytes) -> tuple[bytes, Frame | None]:
    try:
        with suppress(ConnectionError):  # what it said before it hung up counts
            channel.send(Type.ENTER, payload)
        hello = channel.receive(PATIENCE)
        return (hello.payload, channel.receive(PATIENCE)) if hello else (b"", None)
    except TimeoutError:
        raise LaunchTimeout("the monitor did not report that the program is set up in time") from None
