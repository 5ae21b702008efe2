"""A monitor's last words reach the engine, whatever the engine was saying meanwhile."""

from __future__ import annotations

import asyncio
import socket

from trivet.engine.instance.stream import Stream
from trivet.launch.channel import Channel
from trivet.launch.frame import Type, pack


def test_the_end_is_heard_although_input_cannot_be_delivered() -> None:
    """An exit code that waits to be read isn't lost when the connection's end is first noticed by a write."""

    async def hear() -> list[Type]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        stream = await Stream.adopt(Channel(ours))
        try:
            theirs.sendall(pack(Type.STDOUT, b"last words") + pack(Type.EXIT, bytes(20)))
            theirs.close()
            stream.writer.write(pack(Type.STDIN, b"nobody takes this"))  # before the loop looks at what came
            found = []
            while frame := await stream.receive():
                found.append(frame.type)
            return found
        finally:
            stream.close()

    assert asyncio.run(hear()) == [Type.STDOUT, Type.EXIT]
