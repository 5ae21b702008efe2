"""Attaching to containers and reading their logs."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker import version
from trivet.api.docker.duration import nanoseconds
from trivet.api.docker.raw import Connection, carry, frame, parse_keys
from trivet.api.docker.route import Route, flag, name, nothing, whole
from trivet.api.docker.server import MULTIPLEXED, RAW, hijack
from trivet.api.stream import Hijacked
from trivet.base.error import InvalidArgument
from trivet.client.schema import Instance
from trivet.engine.engine import Engine
from trivet.engine.instance.expectation import Expectation
from trivet.engine.instance.log import Wanted
from trivet.engine.instance.status import Word
from trivet.engine.instance.stream import Attach, Stream


class Entry(msgspec.Struct, frozen=True):
    """What a client that attaches will get: the log so far, then the program, which may only start later."""

    instance: Instance
    streams: Attach
    logs: bool
    program: Stream | None = None
    waiting: Expectation | None = None

    def leave(self) -> None:
        """Let go of the program, or wait for it no longer."""
        if self.waiting is not None:
            self.waiting.stream.cancel()
        if self.program is not None:
            self.program.close()


async def attach(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Attach now, or to the start that is to come: `docker run` attaches before it starts."""
    found = await engine.instances.inspect(name(request))
    streams = Attach(stdin=flag(request, "stdin"), stdout=flag(request, "stdout"), stderr=flag(request, "stderr"))
    keys = parse_keys(request.query.get("detachKeys", ""))
    entry = await prepare(engine, request, found, streams)
    try:
        client = hijack(request, content_type(request, found))
    except BaseException:
        entry.leave()
        raise
    await converse(engine, entry, client, keys)
    return Hijacked()


async def prepare(engine: Engine, request: web.Request, found: Instance, streams: Attach) -> Entry:
    """Attach to what there is, before the client is told that it can talk. Raises `WrongStatus`."""
    stream, logs = flag(request, "stream"), flag(request, "logs")
    if not stream:
        return Entry(found, streams, logs)
    if found.status in (Word.RUNNING, Word.PAUSED):
        return Entry(found, streams, logs, program=await engine.instances.attach(found.id, streams, begin=False))
    return Entry(found, streams, logs, waiting=engine.instances.expect(found.id, streams))


async def converse(engine: Engine, entry: Entry, client: Connection, keys: bytes, *, bare: bool = False) -> None:
    """Carry an attached client's conversation to its end."""
    found = entry.instance
    engine.instances.tell(found.id, "attach")
    try:
        if entry.logs and found.log_path:
            await _replay(engine, client, entry, bare=bare)
        program = entry.program
        if entry.waiting is not None:
            program = await _started(client, entry.waiting.stream)
        if program is not None:
            await carry(
                client,
                program,
                terminal=found.request.terminal,
                bare=bare or found.request.terminal,
                stdin=entry.streams.stdin,
                keys=keys,
                settled=lambda: engine.instances.settled(found.id),
            )
    except ConnectionError:
        pass  # the client left: nobody is there to be told
    finally:
        entry.leave()
        client[1].finish()


async def _started(client: Connection, stream: asyncio.Future[Stream]) -> Stream | None:
    """Wait for the start; None if it failed (the client hears why from its own request) or the client left."""
    left = asyncio.create_task(client[1].wait_closed())
    try:
        either: list[asyncio.Future[Any]] = [stream, left]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
    return stream.result() if stream.done() and not stream.cancelled() and stream.exception() is None else None


async def _replay(engine: Engine, client: Connection, entry: Entry, *, bare: bool) -> None:
    wanted = Wanted(stdout=entry.streams.stdout, stderr=entry.streams.stderr)
    bare = bare or entry.instance.request.terminal
    async for kind, data in await engine.instances.logs(entry.instance.id, wanted):
        client[1].write(frame(kind, data, terminal=bare))
        await client[1].drain()


def content_type(request: web.Request, instance: Instance) -> str:
    """Name the form of the stream, as clients of the request's version know it."""
    multiplexed = not instance.request.terminal and version.at_least(request.get("version", ""), "1.42")
    return MULTIPLEXED if multiplexed else RAW


async def logs(engine: Engine, request: web.Request) -> web.StreamResponse:
    found = await engine.instances.inspect(name(request))
    if not (flag(request, "stdout") or flag(request, "stderr")):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = request.query.get("tail", "all")
    wanted = Wanted(
        follow=flag(request, "follow"),
        tail=int(tail) if tail.isdigit() else -1,
        since=nanoseconds(request.query.get("since", "")),
        until=nanoseconds(request.query.get("until", "")),
        timestamps=flag(request, "timestamps"),
        stdout=flag(request, "stdout"),
        stderr=flag(request, "stderr"),
    )
    records = await engine.instances.logs(found.id, wanted)
    response = web.StreamResponse(headers={"Content-Type": content_type(request, found)})
    await response.prepare(request)
    async for kind, data in records:
        await response.write(frame(kind, data, terminal=found.request.terminal))
    await response.write_eof()
    return response


async def resize(engine: Engine, request: web.Request) -> web.StreamResponse:
    key, rows, columns = engine.instances.key(name(request)), whole(request, "h", 0), whole(request, "w", 0)
    await engine.instances.resize(key, rows, columns)
    engine.instances.tell(key, "resize", height=str(rows), width=str(columns))
    return nothing(200)


ONE = "/containers/{name}"
ROUTES = (
    Route("POST", ONE + "/attach", attach, ("stream", "stdin", "stdout", "stderr", "logs", "detachKeys")),
    Route("GET", ONE + "/logs", logs, ("follow", "stdout", "stderr", "since", "until", "timestamps", "tail")),
    Route("POST", ONE + "/resize", resize, ("h", "w")),
)
