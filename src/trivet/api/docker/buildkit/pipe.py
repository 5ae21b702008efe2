"""Bytes of a connection as messages of a stream, and the other way around."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

from trivet.api.docker.buildkit.message import Bytes
from trivet.base.error import TrivetError

PIECE = 32 << 10


class Messages(Protocol):
    """A stream of either side."""

    async def send_message(self, message: Bytes, /) -> None: ...
    async def recv_message(self) -> Bytes | None: ...


async def pour(reader: asyncio.StreamReader, stream: Messages) -> None:
    """Send what comes by a connection, to its end."""
    while data := await reader.read(PIECE):
        await stream.send_message(Bytes(data))


async def carry(
    stream: Messages,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Carry both ways until the stream's other side has ended; `end` is called when the connection has."""

    async def outward() -> None:
        await pour(reader, stream)
        if end:
            await end()

    task = asyncio.create_task(outward())
    try:
        while (message := await stream.recv_message()) is not None:
            writer.write(message.data)
            await writer.drain()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, TrivetError, OSError):
            await task
