"""Volumes."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker import filter
from trivet.api.docker.route import Route, answer, body, filters, flag, name, nothing
from trivet.base.error import NotFound, TrivetError
from trivet.client.schema_volume import Volume, VolumeRequest
from trivet.engine.engine import Engine

ANONYMOUS = "com.docker.volume.anonymous"


class Creation(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of a volume's creation."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}


def shown(volume: Volume) -> dict[str, Any]:
    """Show a volume."""
    facts = {
        "Name": volume.name,
        "Driver": volume.driver,
        "Mountpoint": volume.mountpoint,
        "CreatedAt": volume.created,
        "Labels": _labels(volume) or None,
        "Options": volume.options or None,
        "Scope": "local",
    }
    return facts if volume.size < 0 else {**facts, "UsageData": {"Size": volume.size, "RefCount": len(volume.users)}}


def _labels(volume: Volume) -> dict[str, str]:
    return {**volume.labels, ANONYMOUS: ""} if volume.anonymous else volume.labels


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted = filters(request)
    filter.known(wanted, "dangling", "driver", "label", "name")
    dangling = filter.truth(wanted, "dangling")
    found = [
        volume
        for volume in await engine.list_volumes({}, size=False)
        if filter.named(wanted, "name", volume.name)
        and volume.driver in wanted.get("driver", [volume.driver])
        and (dangling is None or dangling == (not volume.users))
        and filter.labelled(wanted, _labels(volume))
    ]
    return answer({"Volumes": [shown(volume) for volume in found], "Warnings": None})


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(shown(await engine.inspect_volume(name(request))))


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, Creation)
    if wish.driver not in ("", "local"):
        raise NotFound(
            f'create {wish.name}: error looking up volume plugin {wish.driver}: plugin "{wish.driver}" not found'
        )
    made = await engine.create_volume(
        VolumeRequest(
            name=wish.name, driver=wish.driver or "local", labels=wish.labels or {}, options=wish.driver_opts or {}
        )
    )
    return answer(shown(made), 201)


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.remove_volume(name(request), force=flag(request, "force"))
    return nothing()


async def prune(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Remove what nobody uses: anonymous volumes, with the filter `all` named ones too."""
    wanted = filters(request)
    filter.known(wanted, "all", "label", "label!")
    every = filter.truth(wanted, "all")
    done, freed = [], 0
    for volume in await engine.list_volumes({"dangling": ["true"]}, size=True):
        if not (volume.anonymous or every) or not filter.labelled(wanted, _labels(volume)):
            continue
        try:
            await engine.remove_volume(volume.name, force=False)
        except TrivetError:  # somebody uses it since
            continue
        done.append(volume.name)
        freed += max(volume.size, 0)
    return answer({"VolumesDeleted": done or None, "SpaceReclaimed": freed})


ONE = "/volumes/{name}"
ROUTES = (
    Route("GET", "/volumes", listing, ("filters",)),
    Route("POST", "/volumes/create", create, body=Creation),
    Route("POST", "/volumes/prune", prune, ("filters",)),
    Route("GET", ONE, inspect),
    Route("DELETE", ONE, remove, ("force",)),
)
