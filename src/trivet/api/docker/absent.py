"""What an engine without swarm, plugins and sessions answers."""

from __future__ import annotations

from aiohttp import web

from trivet.api.docker.error import NoSwarm
from trivet.api.docker.route import Route, answer
from trivet.base.error import NotFound, Unsupported
from trivet.engine.engine import Engine


async def no_swarm(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise NoSwarm


async def no_plugins(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer([])


async def no_plugin(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise NotFound(f'plugin "{request.match_info["rest"].partition("/")[0]}" not found')


async def no_session(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise Unsupported("BuildKit is not here: build with DOCKER_BUILDKIT=0")


async def no_search(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise Unsupported("registries cannot be searched")


async def no_websocket(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise Unsupported("attaching over a websocket is not supported")


ROUTES = (
    *(
        Route(method, f"/{noun}", no_swarm)
        for noun in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
        for method in ("GET", "POST")
    ),
    Route("POST", "/swarm/{rest:.*}", no_swarm),
    Route("GET", "/plugins", no_plugins),
    Route("*", "/plugins/{rest:.+}", no_plugin),
    Route("POST", "/session", no_session),
    Route("POST", "/grpc", no_session),
    Route("GET", "/images/search", no_search),
    Route("GET", "/containers/{name}/attach/ws", no_websocket),
)
