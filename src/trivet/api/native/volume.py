"""Routes of volumes."""

from __future__ import annotations

from aiohttp import web

from trivet.api.native.route import Route, answer, body, filters, flag, nothing, ref
from trivet.client.schema import Volume, VolumeRequest
from trivet.engine.engine import Engine


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.create_volume(await body(request, VolumeRequest)), 201)


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.list_volumes(filters(request), size=flag(request, "size")))


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.inspect_volume(ref(request)))


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.remove_volume(ref(request), force=flag(request, "force"))
    return nothing()


ROUTES = (
    Route("POST", "/v1/volumes", create, "Create a volume", VolumeRequest, Volume),
    Route("GET", "/v1/volumes", listing, "List volumes", None, list[Volume], ("filter", "size")),
    Route("GET", "/v1/volumes/{ref}", inspect, "Inspect a volume", None, Volume),
    Route("DELETE", "/v1/volumes/{ref}", remove, "Remove a volume", query=("force",)),
)
