"""Routes of images."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from trivet.api.native.route import NDJSON, Route, answer, filters, flag, nothing, ref, required
from trivet.api.stream import progress
from trivet.api.transfer import download, store, upload
from trivet.base.error import InvalidArgument
from trivet.client.schema import Progress, Removed
from trivet.client.schema_image import Image, ImageDetail
from trivet.engine.engine import Engine
from trivet.engine.image.source_registry import More


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.list_images(filters(request)))


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.inspect_image(ref(request)))


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.remove_image(ref(request), force=flag(request, "force")))


async def tag(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.tag_image(ref(request), required(request, "target"))
    return nothing()


async def pull(engine: Engine, request: web.Request) -> web.StreamResponse:
    reference, platform = required(request, "reference"), request.query.get("platform", "")
    more = More(platforms=flag(request, EVERY), referrers=flag(request, "referrers"))
    return await progress(request, lambda report: engine.pull_image(reference, platform, report, more))


async def push(engine: Engine, request: web.Request) -> web.StreamResponse:
    reference = required(request, "reference")
    every = flag(request, EVERY)
    return await progress(request, lambda report: engine.push_image(reference, report, every=every))


async def load(engine: Engine, request: web.Request) -> web.StreamResponse:
    async with upload(request, engine.spool) as file:
        return await progress(request, lambda report: engine.load_images(file, report))


async def import_(engine: Engine, request: web.Request) -> web.StreamResponse:
    reference = request.query.get("reference", "")
    if form := request.query.get("format", ""):
        return await _import_disk(engine, request, reference, form)
    changes, message = request.query.getall("change", []), request.query.get("message", "")
    engine.check_image_name(reference)  # before a long upload, not after it
    async with upload(request, engine.spool) as file:
        return await progress(request, lambda report: engine.import_image(file, reference, changes, message, report))


async def _import_disk(engine: Engine, request: web.Request, reference: str, form: str) -> web.StreamResponse:
    platform, firmware = request.query.get("platform", ""), request.query.get("firmware", "")
    engine.disks.check(reference, form, platform, firmware)
    with engine.disks.room() as room:
        path = room / "upload"
        await store(request, path)
        name = request.query.get("file", "")
        return await progress(
            request,
            lambda report: engine.disks.import_(path, name, form, reference, platform, firmware, report),
        )


async def export(engine: Engine, request: web.Request) -> web.StreamResponse:
    write = await engine.disks.export(ref(request), required(request, "format"), compress=flag(request, "compress"))
    return await download(request, write, "application/octet-stream")


async def save(engine: Engine, request: web.Request) -> web.StreamResponse:
    names, form = request.query.getall("name", []), request.query.get("format", "docker")
    if not names:
        raise InvalidArgument("no image to save was named")
    every = flag(request, EVERY)
    return await download(request, lambda file: engine.save_images(names, file, form, every=every))


async def why(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.why(ref(request)))


async def bill(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.bill(ref(request)))


ONE = "/v1/images/{ref}"
EVERY = "all_platforms"
ROUTES = (
    Route("GET", "/v1/images", listing, "List images", None, list[Image], ("filter",)),
    Route(
        *("POST", "/v1/images/pull", pull, "Pull an image"),
        *(None, Progress, ("reference", "platform", EVERY, "referrers"), NDJSON),
    ),
    Route("POST", "/v1/images/push", push, "Push an image", None, Progress, ("reference", EVERY), NDJSON),
    Route("POST", "/v1/images/load", load, "Load images from a tar", None, Progress, (), NDJSON),
    Route(
        "POST",
        "/v1/images/import",
        import_,
        "Make an image from a root file system's tar, or with format from a disk image file",
        None,
        Progress,
        ("reference", "change", "message", "format", "platform", "firmware", "file"),
        NDJSON,
    ),
    Route(
        *("GET", "/v1/images/save", save, "Save images as a tar"),
        *(None, None, ("name", "format", EVERY), "application/x-tar"),
    ),
    Route("GET", ONE, inspect, "Inspect an image", None, ImageDetail),
    Route("GET", ONE + "/sbom", bill, "Tell which packages an image holds, as SPDX 2.3", None, dict[str, Any]),
    Route(
        *("GET", ONE + "/disk", export, "Write a disk image as a file of a format"),
        query=("format", "compress"),
        stream="application/octet-stream",
    ),
    Route("DELETE", ONE, remove, "Remove an image or one of its names", None, Removed, ("force",)),
    Route("GET", "/v1/content/{ref}/why", why, "Tell what keeps a blob", None, list[str]),
    Route("POST", ONE + "/tag", tag, "Give an image a further name", query=("target",)),
)
