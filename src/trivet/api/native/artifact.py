"""Routes of artifacts: files in registries."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from trivet.api.native.route import NDJSON, Route, answer, required
from trivet.api.stream import progress
from trivet.api.transfer import download, upload
from trivet.base.error import InvalidArgument
from trivet.client.schema import Progress
from trivet.client.schema_image import Referrer
from trivet.engine.engine import Engine
from trivet.engine.image.artifact_file import About, check_kind

Send = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


async def push(engine: Engine, request: web.Request) -> web.StreamResponse:
    return await _send(engine, request, engine.artifacts.push)


async def attach(engine: Engine, request: web.Request) -> web.StreamResponse:
    required(request, "artifact_type")
    return await _send(engine, request, engine.artifacts.attach)


async def _send(engine: Engine, request: web.Request, send: Send) -> web.StreamResponse:
    reference, kinds = required(request, "reference"), request.query.getall("type", [])
    engine.artifacts.check(reference)
    kind = request.query.get("artifact_type", "")
    about = About(kind=check_kind(kind) if kind else "", annotations=_annotations(request))
    async with upload(request, engine.spool) as file:
        return await progress(request, lambda report: send(reference, file, kinds, about, report))


def _annotations(request: web.Request) -> dict[str, str]:
    pairs = [text.partition("=") for text in request.query.getall("annotation", [])]
    if any(not key or not sign for key, sign, _ in pairs):
        raise InvalidArgument("an annotation needs a key and a value", hint="KEY=VALUE")
    return {key: value for key, _, value in pairs}


async def pull(engine: Engine, request: web.Request) -> web.StreamResponse:
    async with engine.artifacts.pulled(required(request, "reference")) as write:
        return await download(request, write)


async def referrers(engine: Engine, request: web.Request) -> web.StreamResponse:
    kind = request.query.get("artifact_type", "")
    return answer(await engine.artifacts.referrers(required(request, "reference"), kind))


SENT = ("reference", "type", "artifact_type", "annotation")
ROUTES = (
    Route(*("POST", "/v1/artifacts/push", push, "Send files to a registry"), *(None, Progress, SENT, NDJSON)),
    Route(
        *("POST", "/v1/artifacts/attach", attach, "Send files to a registry, about a manifest there"),
        *(None, Progress, SENT, NDJSON),
    ),
    Route(
        "GET",
        "/v1/artifacts/pull",
        pull,
        "Fetch files from a registry",
        None,
        None,
        ("reference",),
        "application/x-tar",
    ),
    Route(
        *("GET", "/v1/artifacts/referrers", referrers, "List what refers to a manifest in a registry"),
        *(None, list[Referrer], ("reference", "artifact_type")),
    ),
)
