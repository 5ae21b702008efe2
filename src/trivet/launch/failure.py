"""What the launcher says when it can't carry out a plan, as errors."""

from __future__ import annotations

import os
import struct

from trivet.base.error import Internal, TimedOut, TrivetError
from trivet.launch.channel import Frame
from trivet.launch.frame import HEADER, Type
from trivet.launch.operation import Operation


class LaunchError(TrivetError):
    """An operation of a plan failed. `operation` is None when the launcher or the child itself broke.

    `index` is the operation's place: in a guest agent's own plan, when it was the agent who failed.
    """

    kind = Internal.kind

    def __init__(self, operation: Operation | None, errno: int, text: str, index: int = 0) -> None:
        reason = os.strerror(errno) if errno else ""
        words = text if not reason or text == reason else f"{text}: {reason}" if text else reason
        super().__init__(
            f"cannot {type(operation).__name__.lower()}: {words}" if operation else f"launch failed: {words}"
        )
        self.operation = operation
        self.errno = errno
        self.text = text
        self.index = index


class LaunchTimeout(TimedOut):
    """The launcher did not report, or a task did not end, in time."""


def launch_error(operations: list[Operation], payload: bytes) -> LaunchError:
    """Turn the payload of a FAILED frame into the error that names the operation."""
    index, errno = struct.unpack_from("<Ii", payload)
    operation = operations[index] if index < len(operations) else None
    return LaunchError(operation, errno, payload[8:].decode("utf-8", "replace"), index)


def parse_report(data: bytearray) -> Frame | None:
    """Read the one frame of a report; None while it is not whole."""
    if len(data) < HEADER.size:
        return None
    kind, _, session, length = HEADER.unpack_from(data)
    if len(data) < HEADER.size + length:
        return None
    return Frame(Type(kind), bytes(data[HEADER.size : HEADER.size + length]), session)
