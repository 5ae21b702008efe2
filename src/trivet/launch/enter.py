"""Adding a program to one that runs: its monitor makes a copy of itself, which serves whoever asked.

The client connects as to any monitor, and says ENTER, with a plan that has no `Monitor` and joins process 0: the
monitor's own program, of which nobody else can be so sure. Whether it will is up to the monitor: one of another
launcher, of an earlier release say, or of a program that has ended, won't, and nothing has happened then.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from trivet.launch.channel import Channel, Frame
from trivet.launch.failure import LaunchError, LaunchTimeout, launch_error
from trivet.launch.frame import Type
from trivet.launch.launcher import launcher_key
from trivet.launch.operation import Operation, encode_each, whole

PROGRAM = 0
"""The process to join."""
SOCKET = "monitor.sock"
PATIENCE = 120.0
_NO_OPERATION = b"\xff\xff\xff\xff"


class Entry(msgspec.Struct, frozen=True):
    """What a monitor is asked for: operations, of which all but the last are the same for many programs."""

    first: tuple[Operation, ...]
    encoded: bytes
    """Those, as the launcher reads them."""
    last: Operation

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Entry:
        """Take a plan apart."""
        *first, last = operations
        return cls(tuple(first), encode_each(first), last)

    @property
    def operations(self) -> list[Operation]:
        """The whole plan."""
        return [*self.first, self.last]

    def request(self) -> bytes:
        """Build the payload of ENTER."""
        return launcher_key().encode() + whole(len(self.first) + 1, self.encoded + encode_each([self.last]))


def refused(hello: bytes, answer: Frame | None) -> bool:
    """Tell from what a monitor said first, and then, whether nothing has happened, and nothing will.

    One that hangs up is an older one, which doesn't know the word, unless it said that it does.
    """
    if b'"state":"running"' not in hello:
        return True
    if answer is None:
        return b'"enters":true' not in hello
    return answer.type is Type.EXIT or (answer.type is Type.FAILED and answer.payload.startswith(_NO_OPERATION))


def failure(entry: Entry, answer: Frame | None) -> LaunchError:
    """Turn an answer that isn't READY or STARTED into the error."""
    if answer is None:
        return LaunchError(None, 0, "the monitor ended without a report")
    return launch_error(entry.operations, answer.payload)


def add(directory: Path, entry: Entry) -> Channel | None:
    """Have the monitor of a directory set a further program up, which waits for `Channel.go`; None if it won't.

    Raises `LaunchError` for an operation that failed, and `LaunchTimeout`.
    """
    try:
        channel = Channel.connect(directory / SOCKET)
    except OSError:
        return None
    try:
        hello, answer = _ask(channel, entry.request())
        if refused(hello, answer):
            channel.close()
            return None
        if answer is None or answer.type is not Type.READY:
            raise failure(entry, answer)
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
