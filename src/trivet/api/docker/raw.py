"""Docker's streams: multiplexed frames or a bare terminal one way, bare bytes the other."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from typing import Protocol

from trivet.base.error import InvalidArgument
from trivet.launch.channel import Frame
from trivet.launch.frame import MAXIMUM, Type

HEADER = struct.Struct(">BxxxI")
STREAMS = {Type.STDOUT: 1, Type.STDERR: 2}
DETACH = b"\x10\x11"  # ctrl-p, ctrl-q


class Inlet(Protocol):
    """What a client says."""

    async def read(self, count: int = -1, /) -> bytes:
        """Read some; b"" when it has said all."""


class Outlet(Protocol):
    """What a client is told. Methods raise ConnectionError when it is gone."""

    def write(self, data: bytes, /) -> None:
        """Write, without waiting."""

    async def drain(self) -> None:
        """Wait until the client keeps up."""

    async def wait_closed(self) -> None:
        """Wait until the client has left."""

    def finish(self) -> None:
        """End the conversation, after what was written."""


Connection = tuple[Inlet, Outlet]


class Program(Protocol):
    """The other end: an attached instance, or a further program in one."""

    async def send(self, kind: Type, payload: bytes = b"") -> None:
        """Send one frame."""

    async def receive(self) -> Frame | None:
        """Receive one frame; None at the end."""

    def close(self) -> None:
        """Leave."""


def frame(kind: Type, payload: bytes, *, terminal: bool) -> bytes:
    """Spell output for the client: with a header that tells the stream, or bare from a terminal."""
    return payload if terminal else HEADER.pack(STREAMS[kind], len(payload)) + payload


async def carry(
    client: Connection,
    program: Program,
    *,
    terminal: bool,
    bare: bool | None = None,
    stdin: bool = True,
    keys: bytes = DETACH,
    settled: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Carry both ways until the program has ended, the client has left, or it typed the detach keys.

    With `bare`, output comes without headers that tell its streams; unless said, it does so from a terminal. Before
    the client is told of the end, `settled` waits until the engine knows of it too.
    """
    reader, writer = client
    upward = asyncio.create_task(_input(reader, program, keys if terminal else b"", stdin=stdin, terminal=terminal))
    downward = asyncio.create_task(
        _output(program, writer, terminal=terminal if bare is None else bare, settled=settled)
    )
    leaving: asyncio.Task[None] | None = upward
    try:
        while not downward.done():
            await asyncio.wait([task for task in (downward, leaving) if task], return_when=asyncio.FIRST_COMPLETED)
            if leaving and leaving.done():
                if leaving.exception() is not None:
                    break
                leaving = None
    finally:
        for task in (upward, downward):
            task.cancel()
        await asyncio.gather(upward, downward, return_exceptions=True)
        program.close()
        writer.finish()


class Wire:
    """The outlet of a connection that was taken over."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.write, self.drain, self.wait_closed = writer.write, writer.drain, writer.wait_closed

    def finish(self) -> None:
        """End the connection, after what was written."""
        with contextlib.suppress(OSError, RuntimeError):
            if self._writer.can_write_eof():
                self._writer.write_eof()
        self._writer.close()


class Detached(Exception):
    """The client typed the detach keys."""


async def _output(
    program: Program,
    writer: Outlet,
    *,
    terminal: bool,
    settled: Callable[[], Awaitable[None]] | None,
) -> None:
    with contextlib.suppress(ConnectionError):
        while received := await program.receive():
            if received.type in STREAMS:
                writer.write(frame(received.type, received.payload, terminal=terminal))
                await writer.drain()
            elif received.type in (Type.EXIT, Type.FAILED):
                if settled is not None:
                    await settled()
                return


async def _input(reader: Inlet, program: Program, keys: bytes, *, stdin: bool, terminal: bool) -> None:
    """Pass input on. Its end ends the program's too, but for a terminal, whose user has only left.

    Raises `Detached`, and what `read` raises when the client is gone.
    """
    held = b""
    while data := await reader.read(MAXIMUM):
        if not stdin:
            continue
        ready, held = _without_keys(held + data, keys)
        try:
            for start in range(0, len(ready), MAXIMUM):
                await program.send(Type.STDIN, ready[start : start + MAXIMUM])
        except ConnectionError:
            return  # it has ended: what it said last is still to be read
    if stdin and not terminal:
        with contextlib.suppress(ConnectionError):
            await program.send(Type.STDIN)


def _without_keys(data: bytes, keys: bytes) -> tuple[bytes, bytes]:
    """Return what may be passed on, and what may yet become the detach keys. Raises `Detached`."""
    if not keys:
        return data, b""
    if keys in data:
        raise Detached
    for length in range(min(len(keys) - 1, len(data)), 0, -1):
        if data.endswith(keys[:length]):
            return data[:-length], data[-length:]
    return data, b""


def parse_keys(text: str) -> bytes:
    """Read `ctrl-p,ctrl-q` or `ctrl-\\,x`; "" is Docker's default. Raises `InvalidArgument`."""
    if not text:
        return DETACH
    found = bytearray()
    for word in text.split(","):
        if len(word) == 1:
            found += word.encode()
        elif word.startswith("ctrl-") and len(word) == 6 and word[5] in "abcdefghijklmnopqrstuvwxyz@[\\]^_":
            found.append(ord(word[5].upper()) & 0x1F)
        else:
            raise InvalidArgument(f"invalid detach keys ({text}) provided")
    return bytes(found)
