"""Frames both ways: with a client, over a connection of asyncio's; with a monitor, see line.py."""

from __future__ import annotations

import asyncio
import struct

import msgspec

from trivet.base.error import TrivetError
from trivet.isolation.failure import explain
from trivet.isolation.plan import Program
from trivet.launch.channel import Frame
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

    def flags(self) -> bytes:
        """Build the payload of ATTACH."""
        flags = ATTACH_STDIN * self.stdin | ATTACH_STDOUT * self.stdout | ATTACH_STDERR * self.stderr
        return flags.to_bytes(4, "little")


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


class Stream:
    """One session, as frames in and out."""

    pid = 0
    """Of the program, once it was let go here."""

    async def send(self, kind: Type, payload: bytes = b"") -> None:
        """Send one frame; what the other side doesn't take makes this wait. Raises `ConnectionError`."""
        raise NotImplementedError

    async def receive(self) -> Frame | None:
        """Receive one frame; None when the other side is gone."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection; who waits to receive gets None."""
        raise NotImplementedError

    async def attach(self, *, stdin: bool = False, stdout: bool = False, stderr: bool = False) -> None:
        """Ask for output from now on, and for the right to send."""
        await self.send(Type.ATTACH, Attach(stdin, stdout, stderr).flags())

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


class ClientStream(Stream):
    """A session with a client, over a connection of asyncio's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, kind: Type, payload: bytes = b"") -> None:
        """Send one frame and wait until the buffer has room again."""
        self._writer.write(pack(kind, payload))
        await self._writer.drain()

    async def receive(self) -> Frame | None:
        """Receive one frame; None when the client is gone."""
        try:
            kind, _, session, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            payload = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(Type(kind), payload, session)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
