"""A wire that breaks: relays connections to a server and cuts one after so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """Passes bytes on to `target`; a connection about to send more than `limit` of them is cut, `cuts` times."""

    def __init__(self, target: str, limit: int, cuts: int = 1) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._limit = limit
        self.cuts = cuts
        self.sent = 0  # bytes from clients, in all

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Listen on loopback; yield HOST:PORT."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()[:2]
            yield f"{host}:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, back = await asyncio.open_connection(*self._target)
        try:
            with contextlib.suppress(ConnectionError):
                await asyncio.wait(
                    [
                        asyncio.create_task(self._forward(reader, back, counted=True)),
                        asyncio.create_task(self._forward(theirs, writer)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            back.close()
            writer.close()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool = False
    ) -> None:
        passed = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                passed += len(data)
                if counted and passed > self._limit and self.cuts:
                    self.cuts -= 1
                    return
                writer.write(data)
                await writer.drain()
                self.sent += len(data) if counted else 0
