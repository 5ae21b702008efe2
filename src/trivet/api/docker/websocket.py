"""Attaching over a websocket: the program's output as binary messages, the client's messages as its input.

Output is never multiplexed: a client that wants to tell the streams apart asks for one of them.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web
from aiohttp.http import WSMsgType

from trivet.api.docker import version
from trivet.api.docker.raw import parse_keys
from trivet.api.docker.route import Route, flag, name
from trivet.api.docker.stream import converse, prepare
from trivet.engine.engine import Engine
from trivet.engine.instance.stream import Attach

AHEAD = 16  # messages taken from a client before the program has read them
LARGEST = 1 << 20
FAREWELL = 2.0  # seconds the client has to answer our close


class Inlet:
    """What the client says. Reading goes on while nobody wants it, or its leaving would not be noticed."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(AHEAD)
        self.left = asyncio.Event()

    async def pump(self) -> None:
        """Take messages until the client closes."""
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                await self._queue.put(message.data.encode())
            elif message.type is WSMsgType.BINARY:
                await self._queue.put(message.data)
        self.left.set()
        await self._queue.put(b"")

    async def read(self, count: int = -1, /) -> bytes:
        """Give the next message that isn't empty; b"" when the client has closed."""
        while True:
            data = await self._queue.get()
            if data or self.left.is_set():
                return data


class Outlet:
    """What the client is told, one message for what was written between two drains."""

    def __init__(self, socket: web.WebSocketResponse, left: asyncio.Event) -> None:
        self._socket, self._left = socket, left
        self._out = bytearray()

    def write(self, data: bytes) -> None:
        """Add to the next message."""
        self._out += data

    async def drain(self) -> None:
        """Send it. Raises ConnectionError when the client is gone."""
        data, self._out = bytes(self._out), bytearray()
        await self._socket.send_bytes(data)

    def finish(self) -> None:
        """Nothing: the handler closes."""

    async def wait_closed(self) -> None:
        """Wait until the client has left."""
        await self._left.wait()


async def attach(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Attach now, or to the start that is to come. Before API 1.42 all streams are attached, whatever is asked."""
    found = await engine.instances.inspect(name(request))
    chosen = version.at_least(request.get("version", ""), "1.42")
    streams = Attach(
        stdin=flag(request, "stdin") or not chosen,
        stdout=flag(request, "stdout") or not chosen,
        stderr=flag(request, "stderr") or not chosen,
    )
    keys = parse_keys(request.query.get("detachKeys", ""))
    entry = await prepare(engine, request, found, streams)
    socket = web.WebSocketResponse(timeout=FAREWELL, max_msg_size=LARGEST)
    try:
        await socket.prepare(request)
    except BaseException:
        entry.leave()
        raise
    inlet = Inlet(socket)
    pump = asyncio.create_task(inlet.pump())
    try:
        await converse(engine, entry, (inlet, Outlet(socket, inlet.left)), keys, bare=True)
    finally:
        pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pump
    await socket.close()
    return socket


ROUTES = (
    Route(
        "GET",
        "/containers/{name}/attach/ws",
        attach,
        ("stream", "stdin", "stdout", "stderr", "logs", "detachKeys"),
    ),
)
