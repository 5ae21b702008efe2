"""The engine's end of a monitor's socket, without asyncio's transports: making one takes longer than all that is said.

A monitor may hang up while something is still being sent to it, and what it said before that counts: a program's exit
code, mostly, while its input was on the way. So a failure to send ends only the sending.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from socket import socket

from trivet.engine.instance.stream import Stream
from trivet.launch.channel import Channel, Frame
from trivet.launch.frame import HEADER, MAXIMUM, Type, pack

_ENOUGH = 4 * MAXIMUM  # of what nobody has received yet; the monitor waits then


class Line(Stream):
    """One session of a monitor, as frames in and out; one coroutine at a time may receive."""

    def __init__(self, end: Channel | socket) -> None:
        self._socket = end.detach() if isinstance(end, Channel) else end
        self._socket.setblocking(False)
        self._number = self._socket.fileno()  # selectors describe a socket object to themselves, which takes a while
        self._loop = asyncio.get_running_loop()
        self._heard, self._unsent = bytearray(), bytearray()
        self._reading = self._ended = self._broken = False
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._listen()

    async def send(self, kind: Type, payload: bytes = b"") -> None:
        """Send one frame, and wait until it is on its way. Raises `ConnectionError`."""
        await self.transmit(pack(kind, payload))

    async def transmit(self, frames: bytes) -> None:
        """Send several frames in one piece."""
        self._unsent += frames
        self._push()
        while self._unsent and not self._broken:
            if self._room is None:
                self._room = self._loop.create_future()
                self._loop.add_writer(self._number, self._push)
            await asyncio.shield(self._room)
        if self._broken:
            raise ConnectionResetError("the monitor is gone")

    async def receive(self) -> Frame | None:
        """Receive one frame; None when the monitor is gone."""
        while True:
            if frame := self._next():
                return frame
            if self._ended:
                return None
            self._listen()
            self._news = self._loop.create_future()
            await self._news

    def close(self) -> None:
        """Close the connection; who waits for something hears of its end."""
        self._ended = self._broken = True
        if self._socket.fileno() >= 0:
            self._deaf()
            self._loop.remove_writer(self._number)
            self._socket.close()
        self._wake()

    def _next(self) -> Frame | None:
        if len(self._heard) < HEADER.size:
            return None
        kind, _, session, length = HEADER.unpack_from(self._heard)
        end = HEADER.size + length
        if length > MAXIMUM:
            self._ended = True
        if self._ended and len(self._heard) < end:
            self._heard.clear()
        if len(self._heard) < end:
            return None
        payload = bytes(self._heard[HEADER.size : end])
        del self._heard[:end]
        return Frame(Type(kind), payload, session)

    def _listen(self) -> None:
        if not self._reading and not self._ended:
            self._reading = True
            self._loop.add_reader(self._number, self._hear)

    def _deaf(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._number)

    def _hear(self) -> None:
        try:
            data = self._socket.recv(_ENOUGH)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._heard += data
        self._ended = self._ended or not data
        if self._ended or len(self._heard) >= _ENOUGH:
            self._deaf()
        if self._news and not self._news.done():
            self._news.set_result(None)

    def _push(self) -> None:
        with suppress(BlockingIOError):
            try:
                while self._unsent and not self._broken:
                    del self._unsent[: self._socket.send(self._unsent)]
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                self._broken = True
        if self._room and (self._broken or not self._unsent):
            self._loop.remove_writer(self._number)
            self._room.set_result(None)
            self._room = None

    def _wake(self) -> None:
        for future in (self._news, self._room):
            if future and not future.done():
                future.set_result(None)
        self._room = None
