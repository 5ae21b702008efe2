"""Routes of volumes and their snapshots."""

from __future__ import annotations

from aiohttp import web

from trivet.api.native.route import NDJSON, Route, answer, body, filters, flag, nothing, ref, required
from trivet.api.stream import progress
from trivet.api.transfer import download, upload
from trivet.client.schema import Progress
from trivet.client.schema_volume import Volume, VolumeRequest, VolumeSnapshot
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


async def resize(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.resize_volume(ref(request), required(request, "size")))


async def snapshots(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.backups.list(request.query.get("volume", "")))


async def snapshot(engine: Engine, request: web.Request) -> web.StreamResponse:
    name = request.query.get("name", "")
    return await progress(request, lambda report: engine.backups.take(ref(request), name, report))


async def forget(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.backups.remove(ref(request), request.match_info["name"])
    return nothing()


async def clone(engine: Engine, request: web.Request) -> web.StreamResponse:
    name, target = request.query.get("snapshot", ""), required(request, "target")
    return await progress(request, lambda report: engine.backups.clone(ref(request), name, target, report))


async def rollback(engine: Engine, request: web.Request) -> web.StreamResponse:
    name = required(request, "snapshot")
    return await progress(request, lambda report: engine.backups.rollback(ref(request), name, report))


async def rename(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.backups.rename(ref(request), required(request, "name"))
    return nothing()


async def export(engine: Engine, request: web.Request) -> web.StreamResponse:
    return await download(request, await engine.backups.export(ref(request), request.query.get("snapshot", "")))


async def import_(engine: Engine, request: web.Request) -> web.StreamResponse:
    engine.backups.check_free(ref(request))  # before a long upload, not after it
    async with upload(request, engine.spool) as file:
        return await progress(request, lambda report: engine.backups.import_(ref(request), file, report))


async def push(engine: Engine, request: web.Request) -> web.StreamResponse:
    name, reference = required(request, "snapshot"), required(request, "reference")
    return await progress(request, lambda report: engine.backups.push(ref(request), name, reference, report))


async def pull(engine: Engine, request: web.Request) -> web.StreamResponse:
    reference = required(request, "reference")
    return await progress(request, lambda report: engine.backups.pull(reference, ref(request), report))


ROUTES = (
    Route("POST", "/v1/volumes", create, "Create a volume", VolumeRequest, Volume),
    Route("GET", "/v1/volumes", listing, "List volumes", None, list[Volume], ("filter", "size")),
    Route("GET", "/v1/volume-snapshots", snapshots, "List snapshots", None, list[VolumeSnapshot], ("volume",)),
    Route("GET", "/v1/volumes/{ref}", inspect, "Inspect a volume", None, Volume),
    Route("DELETE", "/v1/volumes/{ref}", remove, "Remove a volume", query=("force",)),
    Route("POST", "/v1/volumes/{ref}/resize", resize, "Let a volume hold more", None, Volume, ("size",)),
    Route("POST", "/v1/volumes/{ref}/snapshots", snapshot, "Take a snapshot", None, Progress, ("name",), NDJSON),
    Route("DELETE", "/v1/volumes/{ref}/snapshots/{name}", forget, "Remove a snapshot"),
    Route("POST", "/v1/volumes/{ref}/clone", clone, "Copy a volume", None, Progress, ("target", "snapshot"), NDJSON),
    Route("POST", "/v1/volumes/{ref}/rollback", rollback, "Put a snapshot back", None, Progress, ("snapshot",), NDJSON),
    Route("POST", "/v1/volumes/{ref}/rename", rename, "Rename a volume", query=("name",)),
    Route("GET", "/v1/volumes/{ref}/export", export, "Write a volume as a tar", query=("snapshot",)),
    Route("POST", "/v1/volumes/{ref}/import", import_, "Make a volume of a tar", None, Progress, (), NDJSON),
    Route(
        *("POST", "/v1/volumes/{ref}/push", push, "Send a snapshot to a registry"),
        *(None, Progress, ("snapshot", "reference"), NDJSON),
    ),
    Route(
        *("POST", "/v1/volumes/{ref}/pull", pull, "Fetch a snapshot from a registry"),
        *(None, Progress, ("reference",), NDJSON),
    ),
)
