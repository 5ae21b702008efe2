"""Manifests: read, store, delete (distribution-spec, end-3, 7, 9)."""

from __future__ import annotations

import asyncio

from aiohttp import web
from msgspec.structs import replace

from trivet.base.error import Corrupt, Unsupported
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.registry.server.blob import STALL
from trivet.registry.server.error import Code, Refusal
from trivet.registry.server.gate import Caller
from trivet.registry.server.registry import Registry
from trivet.registry.server.repository import Stored
from trivet.registry.server.route import Target, check_tag
from trivet.registry.server.webhook import Happened

MOST_TAGS = 10  # given to a manifest by one request


async def read(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Send a manifest as it came; HEAD only describes it."""
    await registry.upstreams.manifest(target.name, target.value)
    found = await asyncio.to_thread(registry.repositories.find, target.name, target.value)
    headers = {"Docker-Content-Digest": found.digest, "Content-Type": found.media_type, "ETag": f'"{found.digest}"'}
    if request.method == "HEAD":
        return web.Response(headers={**headers, "Content-Length": str(found.size)})
    raw = await asyncio.to_thread(registry.content.read, found.digest, limit=manifests.LIMIT)
    await registry.webhooks.tell(_happened("pull", target, caller, found))
    return web.Response(body=raw, headers=headers)


async def store(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Take a manifest under a tag, or under its digest with the tags the query names."""
    await registry.upstreams.refuse_push(target.name)
    raw = await _body(request)
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
    pinned = ":" in target.value
    digest = digests.of(raw, target.value.partition(":")[0] if pinned else "sha256")
    if pinned and digest != target.value:
        raise Refusal(Code.DIGEST_INVALID, f"the manifest has the digest {digest}, not {target.value}")
    tags = tuple(map(check_tag, request.query.getall("tag", []))) if pinned else (target.value,)
    if len(tags) > MOST_TAGS:
        raise Refusal(Code.MANIFEST_INVALID, f"more than {MOST_TAGS} tags", status=414)
    try:
        stored = await asyncio.to_thread(registry.repositories.put, target.name, raw, media_type, digest, tags)
    except (Corrupt, Unsupported) as error:
        raise Refusal(Code.MANIFEST_INVALID, error.message) from error
    await registry.webhooks.tell(_happened("push", target, caller, stored))
    answer = web.Response(status=201)
    answer.headers["Location"] = f"/v2/{target.name}/manifests/{target.value}"
    answer.headers["Docker-Content-Digest"] = digest
    if stored.subject:
        answer.headers["OCI-Subject"] = stored.subject
    for tag in tags if pinned else ():
        answer.headers.add("OCI-Tag", tag)
    return answer


async def delete(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Delete a tag, or a manifest with all its tags."""
    gone = await asyncio.to_thread(registry.repositories.delete, target.name, target.value)
    await registry.webhooks.tell(_happened("delete", target, caller, gone))
    return web.Response(status=202)


def _happened(action: str, target: Target, caller: Caller, stored: Stored | None) -> Happened:
    tag = "" if ":" in target.value else target.value
    happened = Happened(action=action, repository=target.name, tag=tag, user=caller.user)
    if stored is None:
        return happened
    return replace(happened, digest=stored.digest, media_type=stored.media_type, size=stored.size)


async def _body(request: web.Request) -> bytes:
    """Read a manifest, no more than may be one."""
    too_large = Refusal(Code.SIZE_INVALID, f"a manifest may have {manifests.LIMIT >> 20} MiB", status=413)
    if (request.content_length or 0) > manifests.LIMIT:
        raise too_large
    raw = bytearray()
    async with asyncio.timeout(STALL):
        async for piece in request.content.iter_any():
            raw += piece
            if len(raw) > manifests.LIMIT:
                raise too_large
    return bytes(raw)
