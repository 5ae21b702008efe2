"""Attaching to containers and reading their logs."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from trivet.api.docker import version
from trivet.api.docker.duration import nanoseconds
from trivet.api.docker.raw import Connection, carry, finish, frame, parse_keys
from trivet.api.docker.route import Route, flag, name, nothing, whole
from trivet.api.docker.server import MULTIPLEXED, RAW, hijack
from trivet.api.stream import Hijacked
from trivet.base.error import InvalidArgument
from trivet.client.schema import Instance
from trivet.engine.engine import Engine
from trivet.engine.instance.log import Wanted
from trivet.engine.instance.status import Word
from trivet.engine.instance.stream import Attach, Stream


async def attach(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Attach now, or to the start that is to come: `docker run` attaches before it starts."""
    found = await engine.instances.inspect(name(request))
    streams = Attach(stdin=flag(request, "stdin"), stdout=flag(request, "stdout"), stderr=flag(request, "stderr"))
    keys = parse_keys(request.query.get("detachKeys", ""))
    if not (flag(request, "stream") or flag(request, "logs")):
        raise InvalidArgument("Either the stream or logs parameter must be true")
    program, waiting = None, None
    if flag(request, "stream"):
        if found.status in (Word.RUNNING, Word.PAUSED):
            program = await engine.instances.attach(found.id, streams, begin=False)
        else:
            waiting = engine.instances.expect(found.id, streams)
    client = hijack(request, content_type(request, found))
    try:
        if flag(request, "logs"):
            await _replay(engine, client, found, streams)
        if waiting is not None:
            program = await _started(client, waiting.stream)
        if program is not None:
            await carry(
                client,
                program,
                terminal=found.request.terminal,
                stdin=streams.stdin,
                keys=keys,
                settled=lambda: engine.instances.settled(found.id),
            )
    finally:
        if waiting is not None:
            waiting.stream.cancel()
        finish(client[1])
    return Hijacked()


async def _started(client: Connection, stream: asyncio.Future[Stream]) -> Stream | None:
    """Wait for the start; None if it failed (the client hears why from its own request) or the client left."""
    left = asyncio.create_task(client[1].wait_closed())
    try:
        either: list[asyncio.Future[Any]] = [stream, left]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
    return stream.result() if stream.done() and not stream.cancelled() and stream.exception() is None else None


async def _replay(engine: Engine, client: Connection, instance: Instance, streams: Attach) -> None:
    wanted = Wanted(stdout=streams.stdout, stderr=streams.stderr)
    async for kind, data in await engine.instances.logs(instance.id, wanted):
        client[1].write(frame(kind, data, terminal=instance.request.terminal))
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
    response = web.StreamResponse(headers={"Content-Type": content_type(request, found)})
    await response.prepare(request)
    async for kind, data in await engine.instances.logs(found.id, wanted):
        await response.write(frame(kind, data, terminal=found.request.terminal))
    await response.write_eof()
    return response


async def resize(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.resize(name(request), whole(request, "h", 0), whole(request, "w", 0))
    return nothing(200)


ONE = "/containers/{name}"
ROUTES = (
    Route("POST", ONE + "/attach", attach, ("stream", "stdin", "stdout", "stderr", "logs", "detachKeys")),
    Route("GET", ONE + "/logs", logs, ("follow", "stdout", "stderr", "since", "until", "timestamps", "tail")),
    Route("POST", ONE + "/resize", resize, ("h", "w")),
)
