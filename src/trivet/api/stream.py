"""Streams behind a request: an upgraded connection, frames, lines of progress.

The upgrade takes the transport away from aiohttp (`hijack`). aiohttp's parser drops bytes that a
client sends behind the head of an upgrade it doesn't know, so our clients wait for the 101 first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from trivet.api.problem import problem
from trivet.client.schema import Progress
from trivet.engine.instance.stream import BUFFER, ClientStream, Stream
from trivet.launch.frame import Type

SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: trivet-stream\r\n"


LOOK = 0.5  # seconds between looks at whether a client is still there
T = TypeVar("T")


class Hijacked(web.StreamResponse):
    """The answer of a request whose connection isn't HTTP any more: nothing is left to send."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing: the 101 is out already."""

    async def write_eof(self, data: Any = b"") -> None:
        """Send nothing."""


class _Taken(asyncio.StreamReaderProtocol):
    """A connection that was taken over; at its end the server may forget it, too."""

    def __init__(self, reader: asyncio.StreamReader, before: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell both sides."""
        super().connection_lost(exc)
        self._before.connection_lost(exc)


def hijack(request: web.Request, headers: Mapping[str, str] | None = None) -> Stream:
    """Switch the request's connection to frames and take it over. Raises ConnectionResetError if it is gone."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return ClientStream(*take_over(request, f"{SWITCH}{more}\r\n".encode()))


def take_over(
    request: web.Request, head: bytes, early: bytes = b"", ended: bool = False
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Take the request's connection away from HTTP, answered by `head`; `early` is what the client said already.

    Raises ConnectionResetError if it is gone.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    reader = asyncio.StreamReader(limit=BUFFER)
    protocol = _Taken(reader, request.protocol)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    reader.feed_data(early)
    if ended:
        reader.feed_eof()
    transport.write(head)
    if not transport.is_reading():  # the server reads no further than a request that waits
        transport.resume_reading()
    return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())


def switch(request: web.Request, head: bytes, protocol: asyncio.Protocol, early: bytes = b"") -> None:
    """Give the request's connection, answered by `head`, to a protocol that isn't HTTP/1.

    Raises ConnectionResetError if it is gone.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    transport.write(head)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if early:
        protocol.data_received(early)


async def splice(
    client: Stream,
    program: Stream,
    settled: Callable[[], Coroutine[Any, Any, None]],
    signal: Callable[[int], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Carry frames both ways until the program has ended or either side is gone.

    Before the EXIT frame is passed on, `settled` waits until the engine knows of the end too: who
    sees a program end must be able to start or remove its instance right away. `signal` sends signals by
    another way than behind input that the program may never read.
    """
    upward = asyncio.create_task(_carry_input(client, program, signal))
    try:
        while frame := await program.receive():
            if frame.type == Type.EXIT:
                await settled()
            await client.send(frame.type, frame.payload)
            if frame.type in (Type.EXIT, Type.FAILED):
                break
    except ConnectionError:
        pass
    finally:
        upward.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await upward
        program.close()
        client.close()


FROM_CLIENT = frozenset({Type.STDIN, Type.RESIZE, Type.SIGNAL})


async def _carry_input(
    client: Stream, program: Stream, signal: Callable[[int], Coroutine[Any, Any, None]] | None
) -> None:
    while frame := await client.receive():
        if frame.type is Type.SIGNAL and signal is not None:
            await signal(int.from_bytes(frame.payload[:4], "little"))
        elif frame.type in FROM_CLIENT:
            try:
                await program.send(frame.type, frame.payload)
            except ConnectionError:
                return  # it has ended: how, is still to be read from it
    program.close()  # the client is gone: wake the other direction


async def lines(request: web.Request, items: AsyncIterator[msgspec.Struct]) -> web.StreamResponse:
    """Answer with one JSON document a line. An error after the first line ends the stream as a Progress."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    iterator = aiter(items)
    try:
        first = await anext(iterator, None)
        await response.prepare(request)
        if first is not None:
            await response.write(msgspec.json.encode(first) + b"\n")
            async for item in iterator:
                await response.write(msgspec.json.encode(item) + b"\n")
    except ConnectionError:
        return response
    except Exception as error:
        if not response.prepared:
            raise
        await response.write(msgspec.json.encode(Progress(error=problem(error))) + b"\n")
    await response.write_eof()
    return response


async def present(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` for as long as the client is there; when it has gone, whoever still waits is cancelled.

    aiohttp tells of that only who writes, and a step may be silent for an hour.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK)
            if request.transport is None or request.transport.is_closing():
                break
        else:
            return task.result()
        raise asyncio.CancelledError
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def progress(
    request: web.Request, work: Callable[[Callable[[Progress], None]], Coroutine[Any, Any, dict[str, Any]]]
) -> web.StreamResponse:
    """Answer with the progress of a long operation, one JSON document a line; the last has result or error.

    `work` gets a function to report with, callable from any thread. The operation is cancelled when the client goes.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Progress | None] = asyncio.Queue()

    def report(item: Progress) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, item)

    task = asyncio.create_task(present(request, work(report)))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        while (item := await queue.get()) is not None:
            await response.write(_joined(item, queue))
        last = Progress(error=problem(error)) if (error := task.exception()) else Progress(result=task.result())
        await response.write(msgspec.json.encode(last) + b"\n")
        await response.write_eof()
    finally:
        task.cancel()
    return response


def _joined(item: Progress, queue: asyncio.Queue[Progress | None]) -> bytes:
    """Write a line and those that wait behind it, so that many at a time cost one."""
    text = bytearray(msgspec.json.encode(item) + b"\n")
    while not queue.empty():
        following = queue.get_nowait()
        if following is None:
            queue.put_nowait(None)  # the end, which is met next
            break
        text += msgspec.json.encode(following) + b"\n"
    return bytes(text)
