"""`docker build`: the classic builder's request, and the way to BuildKit's."""

from __future__ import annotations

from types import UnionType
from typing import Any, BinaryIO, TypeVar, cast

import msgspec
from aiohttp import web

from trivet.api.docker import filter
from trivet.api.docker.buildkit.job import JOBS, PREFIX
from trivet.api.docker.creation import Ulimit
from trivet.api.docker.credential import of_many
from trivet.api.docker.progress import stream
from trivet.api.docker.route import Route, answer, filters, flag, nothing
from trivet.api.transfer import upload
from trivet.base.error import InvalidArgument
from trivet.build.build import Builder
from trivet.build.error import StepFailed
from trivet.client.schema import Progress, PruneRequest, RlimitRequest
from trivet.client.schema_build import BuildRequest, CacheFrom
from trivet.engine.engine import Engine
from trivet.registry.offer import asking

T = TypeVar("T")
FILTERS = ("description", "id", "inuse", "parent", "private", "shared", "type", "until", "unused-for")
SPACES = ("keep-storage", "reserved-space", "max-used-space", "min-free-space")
HERE = ("", "default", "bridge")
BUILDER = web.AppKey("builder", Builder)


async def build(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Build the tar in the body, or what the client of a session has (`version` 2)."""
    builder, query = request.app[BUILDER], request.query
    if query.get("buildid", "").startswith(PREFIX):
        await request.app[JOBS].give(query["buildid"].removeprefix(PREFIX), request)
        return answer({})
    wish = _wish(request)
    if query.get("version") == "2":
        from trivet.api.docker.buildkit.build import build as by_session  # not before it is needed: gRPC takes memory

        return await by_session(engine, request, builder, wish)
    quiet = flag(request, "q")
    seen: set[str] = set()

    def spell(item: Progress) -> list[dict[str, Any]]:
        if quiet:
            return []
        if item.stream:
            return [{"stream": item.stream}]
        first = item.id not in seen
        seen.add(item.id)
        words = f"Step {item.id.strip('[]')} : {item.status}\n" if first else f" ---> {item.status}\n"
        return [{"stream": words}] if item.id.startswith("[") else []

    def end(result: dict[str, Any]) -> list[dict[str, Any]]:
        if quiet:
            return [{"stream": f"{result['id']}\n"}]
        return [
            {"aux": {"ID": result["id"]}},
            {"stream": f"Successfully built {result['id'].removeprefix('sha256:')[:12]}\n"},
            *({"stream": f"Successfully tagged {each}\n"} for each in result["names"]),
        ]

    def code(error: Exception) -> int:
        return error.code if isinstance(error, StepFailed) else 0

    async with upload(request, engine.spool) as file:
        with asking(of_many(request)):
            return await stream(request, lambda report: _classic(builder, wish, file, report), spell, end, code)


async def _classic(builder: Builder, wish: BuildRequest, file: BinaryIO, report: Any) -> dict[str, Any]:
    """Build; a command that fails is told of as the classic builder does, whose clients read its words."""
    try:
        return await builder.build(wish, file, report)
    except StepFailed as error:
        words = f"The command '/bin/sh -c {error.command}' returned a non-zero code: {error.code}"
        error.message, error.hint = words, None
        raise


def _wish(request: web.Request) -> BuildRequest:
    query = request.query
    network = query.get("networkmode", "")
    return BuildRequest(
        tags=[tag for tag in query.getall("t", []) if tag],
        dockerfile=query.get("dockerfile") or "Dockerfile",
        target=query.get("target", ""),
        build_args={key: value for key, value in _json(request, "buildargs", dict[str, str | None]).items() if value},
        labels=_json(request, "labels", dict[str, str]),
        network="" if network in HERE else network,
        no_cache=flag(request, "nocache"),
        pull=flag(request, "pull"),
        platform=query.get("platform", ""),
        remote="" if query.get("remote") == "client-session" else query.get("remote", ""),
        add_hosts=query.getall("extrahosts", []),
        ulimits=[
            RlimitRequest(limit.name.upper(), limit.soft, limit.hard)
            for limit in _json(request, "ulimits", list[Ulimit] | None, "null") or []
        ],
        shm_size=_json(request, "shmsize", int, "0"),
        memory=max(_json(request, "memory", int, "0"), 0),
        cpu_shares=_json(request, "cpushares", int, "0"),
        cpuset=query.get("cpusetcpus", ""),
        cache_from=[
            CacheFrom(kind="registry", place=name)
            for name in _json(request, "cachefrom", list[str] | None, "null") or []
            if query.get("version") == "2"
        ],
    )


def _json(request: web.Request, key: str, shape: type[T] | UnionType, absent: str = "{}") -> T:
    try:
        return cast(T, msgspec.json.decode(request.query.get(key) or absent, type=shape))
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"error reading {key}: {error}") from error


async def cancel(engine: Engine, request: web.Request) -> web.StreamResponse:
    if not request.query.get("id"):
        raise InvalidArgument("build ID not provided")
    request.app[JOBS].cancel(request.query["id"])
    return nothing(200)


async def prune(engine: Engine, request: web.Request) -> web.StreamResponse:
    filter.known(filters(request), *FILTERS)
    for key in SPACES:
        text = request.query.get(key, "")
        if text and not text.isdecimal():
            problem = f'strconv.Atoi: parsing "{text}": invalid syntax'
            raise InvalidArgument(f"{key} is in bytes and expects an integer, got {text}: {problem}")
    done = await engine.prune(PruneRequest(kinds=["build"], all=True))
    return answer({"CachesDeleted": done.deleted or None, "SpaceReclaimed": done.freed})


ROUTES = (
    Route(
        "POST",
        "/build",
        build,
        (
            *("t", "dockerfile", "target", "buildargs", "labels", "networkmode", "nocache", "pull", "platform", "q"),
            *("cachefrom", "rm", "forcerm", "memswap", "cpuperiod", "cpuquota", "squash", "outputs"),
            *(
                "version",
                "session",
                "buildid",
                "remote",
                "extrahosts",
                "ulimits",
                "shmsize",
                "memory",
                "cpushares",
                "cpusetcpus",
            ),
        ),
    ),
    Route("POST", "/build/cancel", cancel, ("id",)),
    Route(
        "POST",
        "/build/prune",
        prune,
        ("filters", "all", *SPACES),
    ),
)
