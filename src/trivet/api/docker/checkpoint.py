"""Checkpoints: what a running container has in memory and on disk, kept to go on from (the snapshots of `trivet`)."""

from __future__ import annotations

import msgspec
from aiohttp import web

from trivet.api.docker.route import Route, answer, body, name, nothing
from trivet.base.error import Unsupported
from trivet.client.schema_checkpoint import CheckpointRequest, RevertRequest
from trivet.engine.engine import Engine


class Wish(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of a creation."""

    checkpoint_id: str = msgspec.field(default="", name="CheckpointID")
    checkpoint_dir: str = ""
    exit: bool = False


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, Wish)
    _check_place(wish.checkpoint_dir)
    await engine.checkpoints.take(name(request), CheckpointRequest(name=wish.checkpoint_id, end=wish.exit))
    return nothing(201)


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    _check_place(request.query.get("dir", ""))
    return answer([{"Name": each.name} for each in engine.checkpoints.list(name(request)) if each.memory])


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    _check_place(request.query.get("dir", ""))
    await engine.checkpoints.remove(name(request), request.match_info["checkpoint"])
    return nothing()


async def go_on(engine: Engine, request: web.Request, key: str) -> None:
    """Start a container from the checkpoint that a request names."""
    _check_place(request.query.get("checkpoint-dir", ""))
    await engine.checkpoints.revert(key, RevertRequest(name=request.query["checkpoint"], idle=True))


def _check_place(path: str) -> None:
    if path:
        raise Unsupported("a checkpoint is kept with its container: custom checkpointdir is not supported")


ONE = "/containers/{name}/checkpoints"
ROUTES = (
    Route("POST", ONE, create, body=Wish),
    Route("GET", ONE, listing, ("dir",)),
    Route("DELETE", ONE + "/{checkpoint}", remove, ("dir",)),
)
