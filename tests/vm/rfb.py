"""A client of RFB over a websocket (RFC 6143), as small as a test needs it."""

from __future__ import annotations

import struct

from aiohttp import ClientWebSocketResponse

SIZE, KEYS = -223, -258


class Rfb:
    """One viewer."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._held = b""
        self.size = (0, 0)

    async def take(self, count: int) -> bytes:
        """Read so many bytes."""
        while len(self._held) < count:
            self._held += await self._socket.receive_bytes(timeout=60)
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    async def greet(self) -> str:
        """Shake hands; the name of what is shown."""
        assert await self.take(12) == b"RFB 003.008\n"
        await self._socket.send_bytes(b"RFB 003.008\n")
        assert 1 in await self.take((await self.take(1))[0])
        await self._socket.send_bytes(b"\x01")
        assert await self.take(4) == bytes(4)
        await self._socket.send_bytes(b"\x01")
        width, height, _, length = struct.unpack(">HH16sI", await self.take(24))
        self.size = (width, height)
        await self._socket.send_bytes(struct.pack(">BxHiii", 2, 3, 0, SIZE, KEYS))
        return (await self.take(length)).decode()

    async def draw(self) -> int:
        """Ask for the whole picture; how many of its pixels aren't black."""
        await self._socket.send_bytes(struct.pack(">BBHHHH", 3, 0, 0, 0, *self.size))
        drawn = 0
        while not drawn:
            assert await self.take(2) == b"\0\0"
            (count,) = struct.unpack(">H", await self.take(2))
            for _ in range(count):
                *_, width, height, kind = struct.unpack(">HHHHi", await self.take(12))
                if kind == SIZE:
                    self.size = (width, height)
                elif kind == 0:
                    pixels = await self.take(width * height * 4)
                    drawn = sum(pixels[at : at + 3] != b"\0\0\0" for at in range(0, len(pixels), 4))
        return drawn

    async def press(self, place: int) -> None:
        """Press and release the key at a place of an XT keyboard."""
        for down in (1, 0):
            await self._socket.send_bytes(struct.pack(">BBHII", 255, 0, down, 0, place))
