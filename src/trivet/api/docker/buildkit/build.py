"""`docker build` by a session: where its context comes from, who is asked, and what is told of it."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from typing import Any, BinaryIO

import msgspec
from aiohttp import web

from trivet.api.docker.buildkit.caller import SessionCaller
from trivet.api.docker.buildkit.channel import Channel
from trivet.api.docker.buildkit.context import fetch
from trivet.api.docker.buildkit.frontend import output
from trivet.api.docker.buildkit.job import JOBS
from trivet.api.docker.buildkit.trace import Tracer, line
from trivet.api.docker.progress import stream
from trivet.api.docker.session import SESSIONS
from trivet.api.transfer import spooled
from trivet.base.error import InvalidArgument, TrivetError
from trivet.build.build import Builder
from trivet.client.schema_build import BuildRequest, CacheTo
from trivet.engine.engine import Engine
from trivet.registry.offer import asking

FILES, UPLOAD = "client-session", "upload-request"
INLINE = "BUILDKIT_INLINE_CACHE"


async def build(engine: Engine, request: web.Request, builder: Builder, wish: BuildRequest) -> web.StreamResponse:
    """Build what the session's client has; tell it as a trace, or no more than the image's id with `q`.

    Refused at once, the session is ended here: docker 20.10 may forget to, and waits for its end forever.
    """
    channel = await request.app[SESSIONS].find(request.query.get("session", ""))
    try:
        return await _build(engine, request, builder, wish, channel)
    except BaseException:
        channel.close()
        raise


async def _build(
    engine: Engine, request: web.Request, builder: Builder, wish: BuildRequest, channel: Channel
) -> web.StreamResponse:
    query, jobs = request.query, request.app[JOBS]
    key, remote, quiet = query.get("buildid", ""), query.get("remote", ""), query.get("q", "") == "1"
    wish = _with_outputs(msgspec.structs.replace(wish, session=secrets.token_hex(16)), query.get("outputs", ""))
    caller = SessionCaller(channel, engine.spool, wish)
    tracer = Tracer()

    async def work(report: Any) -> dict[str, Any]:
        with ExitStack() as undo:
            file: BinaryIO = undo.enter_context(spooled(engine.spool))
            undo.enter_context(builder.callers.present(wish.session, caller))
            undo.enter_context(asking(caller.credentials))
            wanted = wish
            if remote == FILES:
                wanted = await fetch(channel, wish, file, engine.spool, report)
            elif remote == UPLOAD:
                await jobs.take(key, file)
                wanted = msgspec.structs.replace(wish, remote="")
            file.seek(0)
            return await builder.build(wanted, file, report)

    def end(result: dict[str, Any]) -> list[dict[str, Any]]:
        if quiet and result["id"]:
            return [{"stream": f"{result['id']}\n"}]
        told = [each for trace in tracer.done(result) for each in line(trace)]
        return [*told, {"id": "moby.image.id", "aux": {"ID": result["id"]}}] if result["id"] else told

    def broken(error: TrivetError) -> list[dict[str, Any]]:
        return line(tracer.failed(error.message))

    return await stream(
        request,
        lambda report: jobs.run(key, work(report)),
        lambda item: [] if quiet else line(tracer.spell(item)),
        end,
        broken=broken,
    )


class _Output(msgspec.Struct, frozen=True):
    """Docker's ImageBuildOutput."""

    Type: str = ""
    Attrs: dict[str, str] | None = None


def _with_outputs(wish: BuildRequest, text: str) -> BuildRequest:
    """Read what is to become of the result. Raises `InvalidArgument`."""
    try:
        found = msgspec.json.decode(text or "[]", type=list[_Output] | None) or []
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"error reading outputs: {error}") from error
    if len(found) > 1:
        raise InvalidArgument("multiple outputs not supported")
    outputs = [output(each.Type, each.Attrs or {}) for each in found]
    cache_to = [CacheTo(kind="inline", place="")] if wish.build_args.get(INLINE, "0") in ("1", "true") else []
    return msgspec.structs.replace(wish, outputs=outputs, cache_to=cache_to)
