"""Blobs: read, delete, and upload in one piece, in chunks, or by mounting (distribution-spec, end-2, 4-6, 10-14)."""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from trivet.base.error import TrivetError
from trivet.oci import digest as digests
from trivet.registry.server import stream
from trivet.registry.server.bucket import Bucket
from trivet.registry.server.error import Code, Refusal
from trivet.registry.server.gate import Caller
from trivet.registry.server.registry import Registry
from trivet.registry.server.right import Right
from trivet.registry.server.route import Target, check_digest, check_name
from trivet.registry.server.upload import Upload

PIECE = 512 << 10
STEP = 64 << 20  # bytes of a stream between two looks at the quota
STALL = 60.0  # seconds a client may be silent in the middle of a body
_RANGE = re.compile(r"(?:bytes[= ])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]+|\*))?")


async def read(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Send a blob or the ranges asked for; HEAD tells its size."""
    if not await asyncio.to_thread(registry.repositories.has_blob, target.name, target.value):
        return await _pass_on(registry, request, target)
    headers = {"Docker-Content-Digest": target.value, "Content-Type": "application/octet-stream"}
    if isinstance(registry.content, Bucket):
        return await stream.send(registry.content, request, target.value, headers)
    return web.FileResponse(registry.content.path(target.value), chunk_size=PIECE, headers=headers)


async def _pass_on(registry: Registry, request: web.Request, target: Target) -> web.StreamResponse:
    """Send a blob that an upstream has, the whole of it, while it arrives."""
    arrival = await registry.upstreams.blob(target.name, target.value)
    if arrival is None:
        raise Refusal(Code.BLOB_UNKNOWN, f"repository {target.name} has no blob {target.value}")
    headers = {"Docker-Content-Digest": target.value, "Content-Type": "application/octet-stream"}
    answer = web.StreamResponse(headers={**headers, "Content-Length": str(arrival.size)})
    await answer.prepare(request)
    if request.method != "HEAD":
        try:
            async for piece in arrival.pieces():
                await answer.write(piece)
        except TrivetError as error:  # the status has gone out; a body that is too short says it
            request.transport.close() if request.transport else None
            raise ConnectionError(error.message) from error
    await answer.write_eof()
    return answer


async def delete(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Take a blob from its repository; the bytes go when no other has them."""
    await asyncio.to_thread(registry.repositories.delete_blob, target.name, target.value)
    return web.Response(status=202)


async def begin(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Begin an upload; or mount, or take the whole blob at once, if the query says so."""
    await registry.upstreams.refuse_push(target.name)
    if "mount" in request.query:
        digest, source = check_digest(request.query["mount"]), request.query.get("from")
        # a source that isn't for this caller is like one that lacks the blob
        readable = source is not None and caller.may(Right.PULL, check_name(source))
        if source and readable and await asyncio.to_thread(registry.repositories.has_blob, source, digest):
            size, quota = await asyncio.to_thread(registry.content.size, digest), await registry.quota(target.name)
            await asyncio.to_thread(registry.repositories.link, target.name, digest, size, quota)
            return _created(target, digest)
    algorithm = request.query.get("digest-algorithm", "sha256")
    if algorithm not in digests.LENGTHS:
        raise Refusal(Code.DIGEST_INVALID, f"unknown digest algorithm {algorithm[:40]!r}")
    whole = check_digest(request.query["digest"]) if "digest" in request.query else ""
    if whole:
        algorithm, _ = digests.split(whole)
    await _check_room(registry, target.name, request.content_length or 0)
    upload = await registry.uploads.begin(target.name, algorithm)
    if not whole:
        return _underway(upload, 202)
    async with registry.uploads.hold(target.name, upload.key):
        return await _finish(registry, request, target, upload, whole)


async def status(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Tell how much of an upload is here."""
    async with registry.uploads.hold(target.name, target.value) as upload:
        return _underway(upload, 204)


async def chunk(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Take the next bytes of an upload."""
    async with registry.uploads.hold(target.name, target.value) as upload:
        _check_range(request, upload)
        await _receive(registry, request, upload)
        return _underway(upload, 202)


async def commit(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Take the last bytes of an upload, if any, and give the blob its name."""
    digest = check_digest(request.query.get("digest", ""))
    async with registry.uploads.hold(target.name, target.value) as upload:
        _check_range(request, upload)
        return await _finish(registry, request, target, upload, digest)


async def cancel(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Throw an upload away."""
    async with registry.uploads.hold(target.name, target.value) as upload:
        await registry.uploads.drop(upload)
    return web.Response(status=204)


async def _finish(
    registry: Registry, request: web.Request, target: Target, upload: Upload, digest: str
) -> web.StreamResponse:
    await _receive(registry, request, upload)
    try:
        await asyncio.to_thread(upload.expect, digest)
        quota = await registry.quota(target.name)
        await asyncio.to_thread(registry.repositories.link, target.name, digest, upload.size, quota)
    except BaseException:
        await registry.uploads.drop(upload)
        raise
    await registry.uploads.publish(upload)
    return _created(target, digest)


async def _check_room(registry: Registry, name: str, more: int) -> None:
    """Refuse early what the quota will refuse in the end."""
    quota = await registry.quota(name)
    if quota is not None:
        await asyncio.to_thread(registry.repositories.check_room, name, more, quota)


async def _receive(registry: Registry, request: web.Request, upload: Upload) -> None:
    """Append the request's body; what arrived before a client went away stays."""
    if not request.body_exists:
        return
    checked = upload.size + (request.content_length or 0)
    await _check_room(registry, upload.name, checked)
    while True:
        async with asyncio.timeout(STALL):
            piece = await request.content.readany()
        if not piece:
            return
        await asyncio.to_thread(upload.ingest.write, piece)
        registry.metrics.add("received_bytes_total", len(piece))
        if upload.size >= checked + STEP:  # a stream doesn't say how long it is
            checked = upload.size
            await _check_room(registry, upload.name, checked)


def _check_range(request: web.Request, upload: Upload) -> None:
    """Refuse bytes that don't go on where the upload stands (distribution-spec, "Pushing a blob in chunks")."""
    text = request.headers.get("Content-Range")
    if text is None:
        return
    match = _RANGE.fullmatch(text)
    if match is None:
        raise Refusal(Code.BLOB_UPLOAD_INVALID, f"malformed Content-Range {text[:100]!r}")
    first, last = int(match[1]), int(match[2])
    if first != upload.size or last < first:
        message = f"the upload has {upload.size} bytes, the chunk begins at {first}"
        raise Refusal(Code.BLOB_UPLOAD_INVALID, message, status=416, headers=_headers(upload))
    if request.content_length is not None and request.content_length != last - first + 1:
        message = f"the chunk has {request.content_length} bytes, its Content-Range says {last - first + 1}"
        raise Refusal(Code.SIZE_INVALID, message)


def _headers(upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{upload.name}/blobs/uploads/{upload.key}",
        "Range": f"0-{max(upload.size - 1, 0)}",
        "Docker-Upload-UUID": upload.key,
    }


def _underway(upload: Upload, code: int) -> web.Response:
    return web.Response(status=code, headers=_headers(upload))


def _created(target: Target, digest: str) -> web.Response:
    headers = {"Location": f"/v2/{target.name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)
