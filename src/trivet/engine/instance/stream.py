"""Frames over asyncio: the engine's end of a monitor's socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

import msgspec

from trivet.base.error import TrivetError
from trivet.isolation.failure import explain
from trivet.isolation.plan import Program
from trivet.launch.channel import Channel, Frame
from trivet.launch.frame import (
    ATTACH_STDERR,
    ATTACH_STDIN,
    ATTACH_STDOUT,
    HEADER,
    MAXIMUM,
    Type,
    pack,
)
from trivet.launch.operation import Exec

BUFFER = 4 * MAXIMUM


class Attach(msgspec.Struct, frozen=True):
    """Which streams a client wants."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True


class Failed(Exception):
    """The program could not be executed; `payload` is the FAILED frame's."""

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        self.payload = payload


def refusal(program: Program, failed: Failed, name: str) -> TrivetError:
    """Say why a program that was set up could not be executed: only its last step was left."""
    _, number = struct.unpack_from("<II", failed.payload)
    step = Exec(program.argv, program.env)
    return explain(step, number, failed.payload[8:].decode(errors="replace"), f"instance {name}")


class _Heard(asyncio.StreamReaderProtocol):
    """A connection on which what the monitor said before it hung up is read, also when that is noticed by a write.

    asyncio drops it then: a program's exit code, mostly, while its input was still on the way.
    """

    def __init__(self, reader: asyncio.StreamReader, connection: socket.socket) -> None:
        super().__init__(reader)
        self._into, self._connection = reader, connection

    def connection_lost(self, exc: Exception | None) -> None:
        """Read the rest; the reader's end is an end, and no failure that would hide what came before."""
        if exc is not None:
            with suppress(OSError):
                while data := self._connection.recv(BUFFER):
                    self._into.feed_data(data)
        super().connection_lost(None)


class Stream:
    """One session of a monitor, as frames in and out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.pid = 0  # of the program, once it was let go here

    @classmethod
    async def adopt(cls, channel: Channel) -> Stream:
        """Take a blocking channel over into the event loop."""
        loop, connection = asyncio.get_running_loop(), channel.detach()
        reader = asyncio.StreamReader(limit=BUFFER)
        protocol = _Heard(reader, connection)
        transport, _ = await loop.create_unix_connection(lambda: protocol, sock=connection)
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def send(self, kind: Type, payload: bytes = b"") -> None:
        """Send one frame and wait until the buffer has room again."""
        self.writer.write(pack(kind, payload))
        await self.writer.drain()

    async def receive(self) -> Frame | None:
        """Receive one frame; None when the monitor is gone."""
        try:
            kind, _, session, length = HEADER.unpack(await self.reader.readexactly(HEADER.size))
            payload = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(Type(kind), payload, session)

    async def attach(self, *, stdin: bool = False, stdout: bool = False, stderr: bool = False) -> None:
        """Ask for output from now on, and for the right to send."""
        flags = ATTACH_STDIN * stdin | ATTACH_STDOUT * stdout | ATTACH_STDERR * stderr
        await self.send(Type.ATTACH, flags.to_bytes(4, "little"))

    async def go(self, through: Stream | None = None) -> int:
        """Let the waiting program begin; returns its pid. Raises `Failed`.

        `through` is a connection that has just asked for output: the monitor hears it ask and say GO in this order,
        while it may hear two connections in any, and the first bytes of a quick program would go to nobody.
        """
        await (through or self).send(Type.GO)
        while frame := await self.receive():
            match frame.type:
                case Type.STARTED:
                    self.pid = int.from_bytes(frame.payload[:4], "little")
                    return self.pid
                case Type.FAILED:
                    raise Failed(frame.payload)
        raise Failed(bytes(8) + b"the monitor ended")

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()
