"""Watching a running instance: one connection to its monitor, kept until the program has ended."""

from __future__ import annotations

import asyncio
import struct

from trivet.base.clock import now_ns
from trivet.engine.instance.stream import Stream
from trivet.isolation.driver import Exit
from trivet.launch.frame import Type

EXIT = struct.Struct("<IIQI")


class Watch:
    """A running instance as the engine sees it.

    `ended` resolves when the end is recorded and everything is freed, `settled` when what was agreed
    for the end (removal) has happened too.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Exit] = loop.create_future()
        self.settled: asyncio.Future[Exit] = loop.create_future()

    async def go(self, client: Stream | None) -> int:
        """Let the waiting program begin, at `client`'s word if there is one; returns its pid. Raises `Failed`."""
        await self._stream.attach()
        return await self._stream.go(through=client)

    async def follow(self) -> Exit | None:
        """Wait for the end; None when the monitor went away without a word."""
        try:
            while frame := await self._stream.receive():
                if frame.type == Type.EXIT:
                    return parse_exit(frame.payload)
            return None
        finally:
            self._stream.close()

    def settle(self, end: Exit) -> None:
        """Resolve what is not resolved yet."""
        for future in (self.ended, self.settled):
            if not future.done():
                future.set_result(end)

    def close(self) -> None:
        """Stop watching (the instance goes on)."""
        self._stream.close()


def parse_exit(payload: bytes) -> Exit:
    """Read an EXIT frame."""
    code, signal, time, flags = EXIT.unpack(payload[: EXIT.size])
    return Exit(code=code, signal=signal, time=time, out_of_memory=bool(flags & 1))


def lost_exit(reason: str) -> Exit:
    """Describe an end nobody saw: killed, now, for `reason`."""
    return Exit(code=137, signal=9, time=now_ns(), error=reason)
