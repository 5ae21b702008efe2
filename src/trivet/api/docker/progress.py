"""Long operations as Docker streams them: one JSON document a line, an error at the end or, before it, as a status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker.error import text
from trivet.api.problem import as_trivet_error
from trivet.api.stream import present
from trivet.base.error import TrivetError
from trivet.client.schema import Progress

Line = dict[str, Any]
Work = Callable[[Callable[[Progress], None]], Coroutine[Any, Any, dict[str, Any]]]


async def stream(
    request: web.Request,
    work: Work,
    spell: Callable[[Progress], list[Line]],
    end: Callable[[dict[str, Any]], list[Line]],
    code: Callable[[Exception], int] = lambda _: 0,
    broken: Callable[[TrivetError], list[Line]] = lambda _: [],
    early: bool = False,
) -> web.StreamResponse:
    """Run `work`, and spell its progress and its end for the client. It is cancelled when the client goes.

    The head is sent with the first line, so that an error before it has its own status; `broken` says what
    is told before one that comes later. With `early` it is sent at once, and no error has a status.
    """
    response = web.StreamResponse(headers={"Content-Type": "application/json"})

    async def write(lines: list[Line]) -> None:
        if not lines:
            return
        if not response.prepared:
            await response.prepare(request)
        await response.write(b"".join(msgspec.json.encode(line) + b"\r\n" for line in lines))

    if early:
        await response.prepare(request)
    async with _reports(lambda report: present(request, work(report))) as (reports, task):
        async for item in reports:
            await write(spell(item))
        try:
            await write(end(await task))
        except Exception as error:
            if not response.prepared:
                raise
            with suppress(ConnectionError):
                await write([*broken(as_trivet_error(error)), failure(error, code(error))])
                await response.write_eof()
            return response
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


def failure(error: Exception, code: int = 0) -> Line:
    """Spell an error as the last line."""
    words = text(as_trivet_error(error))
    detail: Line = {"code": code, "message": words} if code else {"message": words}
    return {"errorDetail": detail, "error": words}


def bar(item: Progress, status: str) -> Line:
    """Spell how far one part is, with the bar that old clients print."""
    if not item.total:
        return {"status": status, "progressDetail": {}, "id": item.id}
    filled = 50 * min(item.current, item.total) // item.total
    drawn = f"[{'=' * filled}{'>' * (filled < 50)}{' ' * (49 - filled)}] {_size(item.current):>8}/{_size(item.total)}"
    return {
        "status": status,
        "progressDetail": {"current": item.current, "total": item.total},
        "progress": drawn,
        "id": item.id,
    }


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.4g}GB"


@asynccontextmanager
async def _reports(work: Work) -> AsyncIterator[tuple[AsyncIterator[Progress], asyncio.Task[dict[str, Any]]]]:
    """Run `work` beside the block; what it reports, from whatever thread, can be iterated over until it ends."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Progress | None] = asyncio.Queue()

    def report(item: Progress) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, item)

    async def items() -> AsyncIterator[Progress]:
        while (item := await queue.get()) is not None:
            yield item

    task = asyncio.create_task(work(report))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        yield items(), task
    finally:
        task.cancel()
