"""Routes for files inside instances (`cp`)."""

from __future__ import annotations

import base64

import msgspec
from aiohttp import web

from trivet.api.native.route import Route, nothing, ref
from trivet.api.transfer import chunks
from trivet.engine.engine import Engine

HEADER = "Trivet-Path-Stat"
CHUNK = 1 << 20


async def stat(engine: Engine, request: web.Request) -> web.StreamResponse:
    found = await engine.instances.stat_path(ref(request), request.query.get("path", ""))
    return web.Response(headers={HEADER: base64.b64encode(msgspec.json.encode(found)).decode()})


async def read(engine: Engine, request: web.Request) -> web.StreamResponse:
    return await chunks(request, engine.instances.read_archive(ref(request), request.query.get("path", "")))


async def write(engine: Engine, request: web.Request) -> web.StreamResponse:
    path = request.query.get("path", "")
    await engine.instances.write_archive(ref(request), path, request.content.iter_chunked(CHUNK))
    return nothing()


PATH = "/v1/instances/{ref}/archive"
ROUTES = (
    Route(
        "HEAD", PATH, stat, "Look at a file inside (PathStat, base64 JSON, in header Trivet-Path-Stat)", query=("path",)
    ),
    Route("GET", PATH, read, "Read files as a tar", query=("path",), stream="application/x-tar"),
    Route("PUT", PATH, write, "Unpack a tar into a directory", query=("path",)),
)
