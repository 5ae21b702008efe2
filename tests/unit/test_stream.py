"""A monitor's last words reach the engine, whatever the engine was saying meanwhile."""

from __future__ import annotations

import asyncio
import socket

import pytest

from trivet.engine.instance.line import Line
from trivet.launch.channel import Channel
from trivet.launch.frame import Type, pack


def test_the_end_is_heard_although_input_cannot_be_delivered() -> None:
    """An exit code that waits to be read isn't lost when the connection's end is first noticed by a write."""

    async def hear() -> list[Type]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        stream = Line(Channel(ours))
        try:
            theirs.sendall(pack(Type.STDOUT, b"last words") + pack(Type.EXIT, bytes(20)))
            theirs.close()
            with pytest.raises(ConnectionError):
                await stream.send(Type.STDIN, b"nobody takes this")  # before the loop looks at what came
            found = []
            while frame := await stream.receive():
                found.append(frame.type)
            return found
        finally:
            stream.close()

    assert asyncio.run(hear()) == [Type.STDOUT, Type.EXIT]


def test_who_does_not_read_makes_the_other_wait() -> None:
    """What was sent arrives whole and in order, through a socket that is full again and again, both ways at once."""
    pieces = [bytes([number]) * 60_000 for number in range(100)]

    async def talk() -> tuple[list[bytes], list[bytes]]:
        near, far = (Line(Channel(each)) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))

        async def say(line: Line) -> None:
            for piece in pieces:
                await line.send(Type.STDOUT, piece)

        async def hear(line: Line) -> list[bytes]:
            found: list[bytes] = []
            while len(found) < len(pieces) and (frame := await line.receive()):
                found.append(frame.payload)
                await asyncio.sleep(0)
            return found

        try:
            both = await asyncio.gather(hear(near), hear(far), say(near), say(far))
            return both[0], both[1]
        finally:
            near.close()
            far.close()

    assert asyncio.run(talk()) == (pieces, pieces)


def test_a_closed_line_wakes_who_waits() -> None:
    """Who waits for a frame, or for room, doesn't wait for ever when the line is closed."""

    async def wait() -> tuple[object, object]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        line = Line(Channel(ours))

        async def say() -> None:
            while True:
                await line.send(Type.STDIN, bytes(60_000))

        tasks = [asyncio.create_task(line.receive()), asyncio.create_task(say())]
        await asyncio.sleep(0.05)
        line.close()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        theirs.close()
        return found[0], type(found[1])

    assert asyncio.run(wait()) == (None, ConnectionResetError)
