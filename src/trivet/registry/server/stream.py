"""Sending a blob that is no file here: the range asked for, piece by piece (RFC 9110, 14)."""

from __future__ import annotations

import asyncio

from aiohttp import web

from trivet.registry.server.bucket import Bucket
from trivet.registry.server.error import Code, Refusal

PIECE = 512 << 10


async def send(content: Bucket, request: web.Request, digest: str, headers: dict[str, str]) -> web.StreamResponse:
    """Send a blob, or the range of it that a request asks for. Raises `Refusal`."""
    size = await asyncio.to_thread(content.size, digest)
    start, stop = _range(request, size)
    answer = web.StreamResponse(headers={**headers, "Accept-Ranges": "bytes", "Content-Length": str(stop - start)})
    if "Range" in request.headers:
        answer.set_status(206)
        answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    if request.method == "HEAD" or stop == start:
        await answer.prepare(request)
        return answer
    source = await asyncio.to_thread(content.open_range, digest, start, stop - start)
    try:
        await answer.prepare(request)
        while piece := await asyncio.to_thread(source.read, PIECE):
            await answer.write(piece)
    finally:
        await asyncio.to_thread(source.close)
    await answer.write_eof()
    return answer


def _range(request: web.Request, size: int) -> tuple[int, int]:
    """Read `Range`; the first byte and the one after the last."""
    if "Range" not in request.headers:
        return 0, size
    unmet = Refusal(
        Code.SIZE_INVALID, "there is no such range", status=416, headers={"Content-Range": f"bytes */{size}"}
    )
    try:
        asked = request.http_range
    except ValueError:
        raise unmet from None
    start = asked.start or 0
    start = max(size + start, 0) if start < 0 else start
    stop = size if asked.stop is None else min(asked.stop, size)
    if start >= stop:
        raise unmet
    return start, stop
