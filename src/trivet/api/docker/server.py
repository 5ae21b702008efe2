"""Taking a connection over from HTTP (hijack), without losing a byte.

aiohttp's C parser knows no upgrade but websocket's: what a client sends right behind the head of an
`Upgrade: tcp` request would be dropped or read as another request. `Handler` keeps it for `hijack`.
"""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from trivet.api.docker.raw import Connection, Wire
from trivet.api.stream import take_over

HEAD = re.compile(rb"(?:POST|GET) [^\r\n]{1,8000} HTTP/1\.[01]\r\n")
UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*(?:tcp|h2c)[ \t]*\r\n", re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
EARLY_LIMIT = 1 << 20

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


class Handler(RequestHandler):
    """One client's connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._rest: int | None = None  # bytes of the upgrade's head and body that are still to come
        self.early = bytearray()
        self.ended = False

    def data_received(self, data: bytes) -> None:
        """Hand the request on, and keep what is behind it."""
        if self._rest is None and (head := _upgrade(data)):
            self._rest = head
        if self._rest is None:
            super().data_received(data)
            return
        belonging, behind = data[: self._rest], data[self._rest :]
        self._rest -= len(belonging)
        if belonging:
            super().data_received(belonging)
        self.early += behind
        if len(self.early) > EARLY_LIMIT and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep our side open when a client of an upgrade has said all it wants to say."""
        self.ended = True
        return True if self._rest is not None else None


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return Handler(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Serves an application whose requests can be hijacked."""

    async def _make_server(self) -> Any:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp has no other place to say what its connections are
        return server


def _upgrade(data: bytes) -> int:
    """Tell the length of an upgrade request's head and body; 0 for any other."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or not HEAD.match(data) or not UPGRADE.search(data, 0, end + 2):
        return 0
    length = LENGTH.search(data, 0, end + 2)
    return end + 4 + (int(length[1]) if length else 0)


def hijack(request: web.Request, content_type: str = RAW) -> Connection:
    """Take the connection over, answered with 101 where the client asked for it, else with 200 and no length."""
    handler = request.protocol
    kind = f"Content-Type: {content_type}\r\n".encode()
    if request.headers.get("Upgrade", "").lower() == "tcp":
        head = b"HTTP/1.1 101 UPGRADED\r\n" + kind + b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    else:
        head = b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n"
    ended = isinstance(handler, Handler) and handler.ended
    reader, writer = take_over(request, head, early(request), ended)
    return reader, Wire(writer)


def early(request: web.Request) -> bytes:
    """Tell what the client of an upgrade has said already, behind its request."""
    handler = request.protocol
    return bytes(handler.early) if isinstance(handler, Handler) else b""
