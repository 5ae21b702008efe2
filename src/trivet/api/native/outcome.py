"""Routes of what an instance has become: as an image, as a tar, as a list of changes; and of what it may become."""

from __future__ import annotations

import msgspec
from aiohttp import web

from trivet.api.native.route import Route, answer, body, nothing, ref
from trivet.api.transfer import download
from trivet.client.schema import Change, TakeoverRequest, UpdateRequest
from trivet.client.schema_image import CommitRequest, Committed
from trivet.engine.engine import Engine


async def commit(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, CommitRequest)
    made = await engine.commit(
        ref(request), wish.name, changes=wish.changes, author=wish.author, message=wish.message, pause=wish.pause
    )
    return answer(Committed(id=made), 201)


async def changes(engine: Engine, request: web.Request) -> web.StreamResponse:
    found = await engine.instances.changes(ref(request))
    return answer([Change(path=each.path, kind=each.kind) for each in found])


async def export(engine: Engine, request: web.Request) -> web.StreamResponse:
    key = engine.instances.key(ref(request))
    return await download(request, lambda file: engine.instances.export(key, file.write))


async def update(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, UpdateRequest)
    given = {name: value for name, value in msgspec.structs.asdict(wish).items() if value is not None}
    await engine.instances.update(ref(request), **given)
    return nothing()


async def take_over(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.take_over(ref(request), await body(request, TakeoverRequest))
    return nothing()


ONE = "/v1/instances/{ref}"
ROUTES = (
    Route("POST", ONE + "/commit", commit, "Make an image of an instance", CommitRequest, Committed),
    Route("GET", ONE + "/changes", changes, "List what it changed in its root", None, list[Change]),
    Route("GET", ONE + "/export", export, "Write its root as a tar"),
    Route("POST", ONE + "/update", update, "Change limits, restart policy and ports", UpdateRequest),
    Route("POST", ONE + "/takeover", take_over, "Let it publish what another one did", TakeoverRequest),
)
