"""Bodies of any size: uploads to a spool file, downloads from a writer in a thread."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from aiohttp import web

CHUNK = 1 << 20
SMALL = 64 << 10  # bytes that are written sooner than a thread is woken


@contextmanager
def spooled(directory: Path) -> Iterator[BinaryIO]:
    """Make an unnamed file in `directory`; it is gone when the block ends."""
    with tempfile.TemporaryFile(dir=directory) as file:
        yield cast(BinaryIO, file)


@asynccontextmanager
async def upload(request: web.Request, directory: Path) -> AsyncIterator[BinaryIO]:
    """Spool the request's body into an unnamed file in `directory`; it is gone when the block ends."""
    with spooled(directory) as file:
        async for chunk in request.content.iter_chunked(CHUNK):
            if len(chunk) <= SMALL:
                file.write(chunk)
            else:
                await asyncio.to_thread(file.write, chunk)
        file.seek(0)
        yield file


async def store(request: web.Request, path: Path) -> None:
    """Write the request's body to a new file; what is zeros becomes holes."""
    with path.open("xb") as file:
        async for chunk in request.content.iter_chunked(CHUNK):
            await asyncio.to_thread(_write_sparse, file, chunk)
        file.truncate()


def _write_sparse(file: BinaryIO, chunk: bytes) -> None:
    if chunk.count(0) == len(chunk):
        file.seek(len(chunk), os.SEEK_CUR)
    else:
        file.write(chunk)


async def chunks(
    request: web.Request, pieces: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Answer with a tar as it comes; an error before the first piece is raised, a later one breaks it off."""
    first = await anext(pieces, b"")
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **(headers or {})})
    await response.prepare(request)
    await response.write(first)
    try:
        async for piece in pieces:
            await response.write(piece)
    except Exception:
        if request.transport is not None:
            request.transport.close()  # a broken-off answer can't be taken for a whole one
        raise
    await response.write_eof()
    return response


async def download(
    request: web.Request, write: Callable[[BinaryIO], None], content_type: str = "application/x-tar"
) -> web.StreamResponse:
    """Answer with what `write` writes in a thread, through a pipe. Its error before the first byte is raised.

    A later error breaks the connection off, so that the client can't take a part for the whole.
    """
    read_end, write_end = os.pipe()
    loop = asyncio.get_running_loop()

    def work() -> None:
        with open(write_end, "wb") as sink:  # noqa: PTH123 - a descriptor
            write(sink)

    reader = asyncio.StreamReader(limit=CHUNK)
    task = loop.run_in_executor(None, work)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader),
        open(read_end, "rb"),  # noqa: ASYNC230, PTH123, SIM115 - a descriptor; the transport closes it
    )
    try:
        first = await reader.read(CHUNK)
        if not first:
            await task
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        chunk = first
        while chunk:
            await response.write(chunk)
            chunk = await reader.read(CHUNK)
        try:
            await task
        except Exception:
            if request.transport is not None:
                request.transport.close()
            raise
        await response.write_eof()
        return response
    finally:
        transport.close()  # a writer that still writes gets EPIPE and ends
