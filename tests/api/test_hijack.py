"""Connections taken over from HTTP: no byte is lost, however it arrives, and nothing is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from trivet.api.docker.server import Runner, hijack
from trivet.api.stream import Hijacked

HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 4\r\n\r\n"
BODY = b"body"


async def echo(request: web.Request) -> web.StreamResponse:
    """Give back the body and everything behind it."""
    body = await request.read()
    reader, writer = hijack(request)
    writer.write(body + await reader.read())
    writer.finish()
    return Hijacked()


async def converse(path: Path, segments: list[bytes]) -> bytes:
    """Send segments, half-close, and read to the end."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    for segment in segments:
        writer.write(segment)
        await asyncio.sleep(0.01)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def serve(path: Path, conversations: list[list[bytes]]) -> tuple[list[bytes], int]:
    """Serve the conversations; return the answers and the number of connections the server still knows."""
    app = web.Application()
    app.router.add_post("/echo", echo)
    runner = Runner(app)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        answers = [await converse(path, each) for each in conversations]
        await asyncio.sleep(0.05)
        assert runner.server is not None
        return answers, len(runner.server.connections)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "segments",
    [
        [HEAD + BODY + b"early"],
        [HEAD, BODY + b"early"],
        [HEAD + BODY[:2], BODY[2:] + b"ea", b"rly"],
        [HEAD + BODY, b"GET / HTTP/1.1\r\n\r\n"],
    ],
    ids=["one", "body-later", "body-split", "looks-like-http"],
)
def test_bytes_behind_the_head(short_path: Path, segments: list[bytes]) -> None:
    """What follows head and body reaches the handler, whatever it looks like."""
    (answer,), _ = asyncio.run(serve(short_path / "s", [segments]))
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert content == b"".join(segments).removeprefix(HEAD)


def test_nothing_is_left(short_path: Path) -> None:
    """The server forgets a connection that was taken over, when it ends."""
    answers, left = asyncio.run(serve(short_path / "s", [[HEAD + BODY]] * 20))
    assert (len(answers), left) == (20, 0)
