"""A connection to one session of a monitor: the instance's program, or one that `exec` added.

Blocking; the engine hands `Channel.detach()` to asyncio for streaming.
"""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec

from trivet.launch.frame import Type


class Frame(msgspec.Struct, frozen=True):
    """One frame as received."""

    type: Type
    payload: bytes
    session: int = 0


class Channel:
    """Frames over a connected unix socket. Use as a context manager, or call `close`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    def connect(cls, path: Path) -> Channel:
        """Connect to `monitor.sock` (paths over 107 bytes go through /proc/self/fd). OSError when nobody listens."""
        raise NotImplementedError

    def send(self, kind: Type, payload: bytes = b"") -> None:
        """Send one frame."""
        raise NotImplementedError

    def receive(self, timeout: float | None = None) -> Frame | None:
        """Receive one frame; None at the end of the stream. Raises TimeoutError."""
        raise NotImplementedError

    def detach(self) -> socket.socket:
        """Give the socket away; no byte has been read beyond the last frame returned."""
        raise NotImplementedError
