"""Routes of builds. The builder is told from outside, since the engine doesn't know it."""

from __future__ import annotations

from aiohttp import web

from trivet.api.native.route import Route, decode
from trivet.api.stream import Hijacked, progress, take_over
from trivet.api.transfer import upload
from trivet.base.error import InvalidArgument
from trivet.build.build import Builder
from trivet.build.caller import Line
from trivet.client.schema import Progress
from trivet.client.schema_build import BuildRequest
from trivet.engine.engine import Engine

BUILDER = web.AppKey("builder", Builder)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: trivet-stream\r\n\r\n"
SHORTEST = 16  # characters of a session's id, so that nobody guesses another's


async def build(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = decode(request.headers.get("Trivet-Build", "{}"), BuildRequest)
    builder = request.app[BUILDER]
    async with upload(request, engine.spool) as file:
        return await progress(request, lambda report: builder.build(wish, file, report))


async def session(engine: Engine, request: web.Request) -> web.StreamResponse:
    key = request.query.get("key", "")
    if len(key) < SHORTEST:
        raise InvalidArgument(f"a build session's key has at least {SHORTEST} characters")
    line = Line(*take_over(request, SWITCH))
    try:
        await request.app[BUILDER].callers.wait(key, line)
    finally:
        line.close()
    return Hijacked()


ROUTES = (
    Route(
        "POST",
        "/v1/build",
        build,
        "Build an image (header Trivet-Build: BuildRequest)",
        None,
        Progress,
        (),
        "application/x-ndjson",
    ),
    Route(
        "POST",
        "/v1/build/session",
        session,
        "Wait for what a build asks its caller for: secrets, SSH agents, contexts, outputs (upgrades)",
        None,
        None,
        ("key",),
        "application/vnd.trivet.stream",
    ),
)
