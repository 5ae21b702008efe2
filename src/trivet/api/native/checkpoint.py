"""Routes of instances' snapshots and clones."""

from __future__ import annotations

import msgspec
from aiohttp import web

from trivet.api.native.route import Route, answer, body, nothing, ref, required
from trivet.base.error import InvalidArgument
from trivet.client.schema import LevelName
from trivet.client.schema_checkpoint import (
    Checkpoint,
    CheckpointRequest,
    Cloned,
    CloneRequest,
    Relevelled,
    RevertRequest,
)
from trivet.engine.engine import Engine


async def take(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.checkpoints.take(ref(request), await body(request, CheckpointRequest)), 201)


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(engine.checkpoints.list(request.query.get("instance", "")))


async def revert(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.checkpoints.revert(ref(request), await body(request, RevertRequest)))


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.checkpoints.remove(ref(request), ref(request, "name"))
    return nothing()


async def relevel(engine: Engine, request: web.Request) -> web.StreamResponse:
    text = required(request, "isolation")
    try:
        level: LevelName = msgspec.convert(text, LevelName)
    except msgspec.ValidationError:
        raise InvalidArgument(f"unknown isolation level {text!r}: process, container, vm") from None
    return answer(Relevelled(level=level, gap=await engine.instances.relevel(ref(request), level)))


async def clone(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.checkpoints.clone(ref(request), await body(request, CloneRequest)), 201)


ONE = "/v1/instances/{ref}"
ROUTES = (
    Route("POST", ONE + "/snapshots", take, "Take a snapshot of an instance", CheckpointRequest, Checkpoint),
    Route("GET", "/v1/snapshots", listing, "List snapshots of instances", None, list[Checkpoint], ("instance",)),
    Route("POST", ONE + "/revert", revert, "Let an instance be what a snapshot says", RevertRequest, Checkpoint),
    Route("DELETE", ONE + "/snapshots/{name}", remove, "Remove a snapshot of an instance"),
    Route("POST", ONE + "/relevel", relevel, "Change an instance's level", None, Relevelled, ("isolation",)),
    Route("POST", ONE + "/clone", clone, "Make copies of an instance, running if it runs", CloneRequest, Cloned),
)
