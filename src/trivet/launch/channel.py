"""A connection to one session of a monitor: the instance's program, or one that `exec` added.

Blocking; the engine hands `Channel.detach()` to asyncio for streaming.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from pathlib import Path
from types import TracebackType

import msgspec

from trivet.base.error import Corrupt
from trivet.launch.frame import (
    ATTACH_STDERR,
    ATTACH_STDIN,
    ATTACH_STDOUT,
    HEADER,
    MAXIMUM,
    MAXIMUM_PLAN,
    Type,
    pack,
)

LONGEST_ADDRESS = 107


class Frame(msgspec.Struct, frozen=True):
    """One frame as received."""

    type: Type
    payload: bytes
    session: int = 0


class Hello(msgspec.Struct, frozen=True):
    """What a monitor says first; whether it `enters`, older ones don't know."""

    version: int
    state: str
    pid: int
    enters: bool = False


class BrokenStream(Corrupt):
    """The other side of a channel does not speak our frames."""


class Channel:
    """Frames over a connected unix socket. Use as a context manager, or call `close`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._partial = bytearray()
        self.hello: Hello | None = None

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def connect(cls, path: Path) -> Channel:
        """Connect to `monitor.sock`. OSError when nobody listens."""
        return cls(dial(path))

    def greet(self, timeout: float | None = None) -> Hello:
        """Consume the monitor's HELLO and remember it in `hello`. Raises ConnectionError when it isn't said."""
        frame = self.receive(timeout)
        if frame is None or frame.type is not Type.HELLO:
            raise ConnectionError("the monitor ended before it said hello")
        self.hello = msgspec.json.decode(frame.payload, type=Hello)
        return self.hello

    def attach(self, *, stdin: bool = True, stdout: bool = True, stderr: bool = True) -> None:
        """Ask for output from now on, and for the right to send input, GO, RESIZE and SIGNAL."""
        flags = (ATTACH_STDIN if stdin else 0) | (ATTACH_STDOUT if stdout else 0) | (ATTACH_STDERR if stderr else 0)
        self.send(Type.ATTACH, struct.pack("<I", flags))

    def go(self) -> None:
        """Let the program that waits begin."""
        self.send(Type.GO)

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        self.send(Type.SIGNAL, struct.pack("<I", number))

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the program's terminal."""
        self.send(Type.RESIZE, struct.pack("<HH", rows, columns))

    def write(self, data: bytes) -> None:
        """Send input, cut into frames; `end_input` ends it."""
        for start in range(0, len(data), MAXIMUM):
            self.send(Type.STDIN, data[start : start + MAXIMUM])

    def end_input(self) -> None:
        """Tell the program that no more input comes."""
        self.send(Type.STDIN)

    def send(self, kind: Type, payload: bytes = b"") -> None:
        """Send one frame."""
        self._connection.settimeout(None)
        self._connection.sendall(pack(kind, payload))

    def receive(self, timeout: float | None = None) -> Frame | None:
        """Receive one frame; None at the end of the stream. Raises TimeoutError; the frame can be awaited again."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._fill(HEADER.size, deadline):
            return None
        kind, zero, session, length = HEADER.unpack_from(self._partial)
        if zero or length > (MAXIMUM_PLAN if kind in (Type.START, Type.EXEC) else MAXIMUM):
            raise BrokenStream(f"a monitor sent a malformed frame header: {bytes(self._partial[:8])!r}")
        if not self._fill(HEADER.size + length, deadline):
            return None
        payload = bytes(self._partial[HEADER.size :])
        self._partial.clear()
        return Frame(Type(kind), payload, session)

    def lives(self) -> bool:
        """Tell whether the monitor hasn't hung up."""
        poll = select.poll()  # select.select() knows the first 1024 descriptors only
        poll.register(self._connection, select.POLLRDHUP)
        return not poll.poll(0)

    def detach(self) -> socket.socket:
        """Give the socket away; no byte has been read beyond the last frame returned."""
        connection, self._connection = self._connection, socket.socket(socket.AF_UNIX)
        self._connection.close()
        connection.settimeout(None)
        return connection

    def close(self) -> None:
        """Close the connection; the program runs on."""
        self._connection.close()

    def _fill(self, size: int, deadline: float | None) -> bool:
        """Read until `size` bytes of the current frame are there; False at the end of the stream."""
        while len(self._partial) < size:
            remaining = None if deadline is None else max(deadline - time.monotonic(), 0.0001)
            self._connection.settimeout(remaining)
            try:
                data = self._connection.recv(size - len(self._partial))
            except ConnectionResetError:
                return False
            if not data:
                return False
            self._partial += data
        return True


def dial(path: str | Path, *, wait: bool = True) -> socket.socket:
    """Connect to a unix socket (paths over 107 bytes go through /proc/self/fd). OSError when nobody listens.

    Who doesn't `wait` gets BlockingIOError when too many others do, and else a socket that doesn't block.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if not wait:
            connection.setblocking(False)
        if len(os.fsencode(path)) <= LONGEST_ADDRESS:
            connection.connect(os.fspath(path))
        else:
            _connect_by_descriptor(connection, Path(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_by_descriptor(connection: socket.socket, path: Path) -> None:
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
