"""Lists: the catalog, a repository's tags, a manifest's referrers (distribution-spec, end-8, 12)."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from trivet.oci.descriptor import OCI_INDEX
from trivet.registry.server.error import Code, Refusal
from trivet.registry.server.gate import Caller
from trivet.registry.server.registry import Registry
from trivet.registry.server.repository import index_of
from trivet.registry.server.route import Target

PAGE = 1000  # entries of one answer, at most


async def api(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """Say that this is a registry."""
    return web.json_response({})


async def catalog(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """List the repositories that the caller may pull from."""
    limit, last = _page(request)

    def visible() -> list[str]:
        found: list[str] = []
        after = last
        while len(found) <= limit and (page := registry.repositories.catalog(after, PAGE)):
            found += [name for name in page if caller.user_may_see(name)]
            after = page[-1]
        return found[: limit + 1]

    found = await asyncio.to_thread(visible)
    return _answer(request, {"repositories": found[:limit]}, found, limit)


async def tags(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """List a repository's tags."""
    limit, last = _page(request)
    found = await asyncio.to_thread(registry.repositories.list_tags, target.name, last, limit + 1)
    return _answer(request, {"name": target.name, "tags": found[:limit]}, found, limit)


async def referrers(registry: Registry, request: web.Request, target: Target, caller: Caller) -> web.StreamResponse:
    """List what refers to a manifest, perhaps of one type only; of an unknown one nothing does."""
    found = await asyncio.to_thread(registry.repositories.referrers, target.name, target.value)
    headers = {"Content-Type": OCI_INDEX}
    if wanted := request.query.get("artifactType", ""):
        found = [each for each in found if each.artifact_type == wanted]
        headers["OCI-Filters-Applied"] = "artifactType"
    return web.Response(body=index_of(found), headers=headers)


def _page(request: web.Request) -> tuple[int, str]:
    """Read `n`, capped, and `last`. Raises `Refusal`."""
    text = request.query.get("n", str(PAGE))
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Refusal(Code.UNSUPPORTED, f"n={text[:40]!r} is not a number of entries", status=400)
    return min(int(text), PAGE), request.query.get("last", "")[:300]


def _answer(request: web.Request, body: dict[str, object], found: list[str], limit: int) -> web.Response:
    headers = {"Content-Type": "application/json"}
    if len(found) > limit > 0:
        query = urlencode({"n": limit, "last": found[limit - 1]})
        headers["Link"] = f'<{request.path}?{query}>; rel="next"'
    return web.Response(body=msgspec.json.encode(body), headers=headers)
