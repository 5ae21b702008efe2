"""Routes of machines with an operating system of their own: what only they can do."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web
from aiohttp.http import WSMsgType

from trivet.api.native.route import NDJSON, Route, answer, body, flag, nothing, number, ref, required
from trivet.api.stream import progress
from trivet.api.transfer import download
from trivet.client.schema import Created, Progress
from trivet.client.schema_machine import (
    BackupPoint,
    CatalogueImage,
    DeviceRequest,
    DiskLimits,
    DiskRequest,
    KeysRequest,
    MachineInfo,
    ObtainRequest,
    PointRequest,
    RestoreRequest,
)
from trivet.engine.engine import Engine


async def obtain(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, ObtainRequest)
    return await progress(request, lambda report: engine.machines.obtain(wish, report))


async def catalogue(engine: Engine, request: web.Request) -> web.StreamResponse:
    url, keyring = required(request, "catalogue"), request.query.get("keyring", "")
    return answer(await engine.machines.catalogue(url, keyring))


async def info(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.machines.info(ref(request)))


async def reboot(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.machines.reboot(ref(request), hard=flag(request, "force"))
    return nothing()


async def screenshot(engine: Engine, request: web.Request) -> web.StreamResponse:
    return web.Response(body=await engine.machines.screenshot(ref(request)), content_type="image/png")


async def screen(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Carry RFB between a websocket's messages and the machine, until either is gone."""
    connection = await engine.machines.show(ref(request))
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    client = web.WebSocketResponse(protocols=("binary",), timeout=FAREWELL, max_msg_size=LARGEST)
    await client.prepare(request)
    shown = asyncio.create_task(_show(reader, client))
    try:
        async for message in client:
            if message.type is not WSMsgType.BINARY:
                break
            writer.write(message.data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        shown.cancel()
        writer.close()
        await client.close()
    return client


async def _show(reader: asyncio.StreamReader, client: web.WebSocketResponse) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(PIECE):
            await client.send_bytes(piece)
    await client.close()


async def keys(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, KeysRequest)
    if wish.keys:
        await engine.machines.press(ref(request), wish.keys)
    if wish.text:
        await engine.machines.type(ref(request), wish.text)
    return nothing()


async def point(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, PointRequest)
    await engine.machines.point(ref(request), wish.x, wish.y, wish.button, wish.down)
    return nothing()


async def add_disk(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.machines.add_disk(ref(request), await body(request, DiskRequest))
    return nothing()


async def resize_disk(engine: Engine, request: web.Request) -> web.StreamResponse:
    size = int(number(request, "size", 0))
    await engine.machines.resize_disk(ref(request), request.match_info["disk"], size)
    return nothing()


async def limit_disk(engine: Engine, request: web.Request) -> web.StreamResponse:
    limits = await body(request, DiskLimits)
    await engine.machines.limit_disk(ref(request), request.match_info["disk"], limits)
    return nothing()


async def remove_disk(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.machines.remove_disk(ref(request), request.match_info["disk"])
    return nothing()


async def add_device(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.machines.add_device(ref(request), await body(request, DeviceRequest))
    return nothing()


async def remove_device(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.machines.remove_device(ref(request), request.match_info["device"])
    return nothing()


async def backup(engine: Engine, request: web.Request) -> web.StreamResponse:
    directory, full = required(request, "directory"), flag(request, "full")
    return await progress(request, lambda report: engine.machines.backup(ref(request), directory, report, full=full))


async def backups(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.machines.backups(required(request, "directory")))


async def restore(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(Created(id=await engine.machines.restore(await body(request, RestoreRequest))), 201)


async def export(engine: Engine, request: web.Request) -> web.StreamResponse:
    write = await engine.machines.export(ref(request), required(request, "format"))
    return await download(request, write, "application/octet-stream")


async def commit(engine: Engine, request: web.Request) -> web.StreamResponse:
    reference = required(request, "reference")
    return await progress(request, lambda report: engine.machines.commit(ref(request), reference, report))


ONE = "/v1/machines/{ref}"
FAREWELL = 2.0
LARGEST, PIECE = 1 << 20, 256 << 10
IMAGES, BACKUPS = "/v1/machine-images", "/v1/machine-backups"
ROUTES = (
    Route("POST", IMAGES, obtain, "Have a disk image here, made or fetched", ObtainRequest, Progress, stream=NDJSON),
    Route(
        "GET",
        IMAGES,
        catalogue,
        "List the disk images of a catalogue",
        None,
        list[CatalogueImage],
        ("catalogue", "keyring"),
    ),
    Route("GET", ONE, info, "Tell what is known of a machine", None, MachineInfo),
    Route("POST", ONE + "/reboot", reboot, "Reboot a machine", query=("force",)),
    Route("GET", ONE + "/screenshot", screenshot, "Take a picture of a machine's screen", stream="image/png"),
    Route("GET", ONE + "/screen", screen, "Show a machine's screen, by RFB over a websocket", stream="websocket"),
    Route("POST", ONE + "/disks", add_disk, "Give a machine a further, empty disk", DiskRequest),
    Route("POST", ONE + "/disks/{disk}/resize", resize_disk, "Let a disk of a machine grow", query=("size",)),
    Route("POST", ONE + "/disks/{disk}/limits", limit_disk, "Limit a disk of a machine, at once", DiskLimits),
    Route("DELETE", ONE + "/disks/{disk}", remove_disk, "Take a disk and its data from a machine"),
    Route("POST", ONE + "/devices", add_device, "Give a machine a further device", DeviceRequest),
    Route("DELETE", ONE + "/devices/{device}", remove_device, "Take a device from a machine"),
    Route(
        "POST",
        ONE + "/backup",
        backup,
        "Back a machine up to a directory",
        None,
        Progress,
        ("directory", "full"),
        NDJSON,
    ),
    Route("GET", ONE + "/export", export, "Write a machine to a file", query=("format",), stream="file"),
    Route("POST", ONE + "/commit", commit, "Make a disk image of a machine", None, Progress, ("reference",), NDJSON),
    Route("GET", BACKUPS, backups, "List the backups in a directory", None, list[BackupPoint], ("directory",)),
    Route("POST", BACKUPS, restore, "Make a machine of a backup", RestoreRequest, Created),
    Route("POST", ONE + "/keys", keys, "Press keys, then type a text", KeysRequest),
    Route("POST", ONE + "/pointer", point, "Move the pointer and click", PointRequest),
)
