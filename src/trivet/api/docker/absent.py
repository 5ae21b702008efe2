"""What an engine without swarm and plugins answers."""

from __future__ import annotations

from aiohttp import web

from trivet.api.docker.error import NoSwarm, NotInSwarm
from trivet.api.docker.route import Route, answer
from trivet.base.error import NotFound, Unsupported
from trivet.engine.engine import Engine

SWARM = (
    *(("GET", path) for path in ("/swarm", "/swarm/unlockkey")),
    *(("POST", path) for path in ("/swarm/unlock", "/swarm/update")),
    *(("GET", f"/{noun}") for noun in ("nodes", "services", "tasks", "secrets", "configs")),
    *(("GET", f"/{noun}/{{name}}") for noun in ("nodes", "services", "tasks", "secrets", "configs")),
    *(("POST", f"/{noun}/{{name}}/update") for noun in ("nodes", "services", "secrets", "configs")),
    *(("DELETE", f"/{noun}/{{name}}") for noun in ("nodes", "services", "secrets", "configs")),
    *(("POST", f"/{noun}/create") for noun in ("services", "secrets", "configs")),
    ("PUT", "/volumes/{name}"),
    *(("GET", f"/{noun}/{{name}}/logs") for noun in ("services", "tasks")),
)
PLUGIN = (
    *(("POST", f"/plugins/{{name:.+}}/{verb}") for verb in ("enable", "disable", "push", "upgrade", "set")),
    ("GET", "/plugins/{name:.+}/json"),
    ("DELETE", "/plugins/{name:.+}"),
)


async def no_swarm(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise NoSwarm


async def not_in_swarm(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise NotInSwarm


async def no_new_swarm(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise Unsupported("there is no swarm mode here: hosts are joined with trivet's own commands")


async def no_plugins(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer([])


async def no_plugin(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise NotFound(f'plugin "{request.match_info["name"]}" not found')


async def no_new_plugin(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise Unsupported("plugins cannot be installed")


async def no_search(engine: Engine, request: web.Request) -> web.StreamResponse:
    raise Unsupported("registries cannot be searched")


ROUTES = (
    *(Route(method, path, no_swarm) for method, path in SWARM),
    Route("POST", "/swarm/leave", not_in_swarm),
    Route("POST", "/swarm/init", no_new_swarm),
    Route("POST", "/swarm/join", no_new_swarm),
    Route("GET", "/plugins", no_plugins),
    Route("GET", "/plugins/privileges", no_plugins),
    Route("POST", "/plugins/pull", no_new_plugin),
    Route("POST", "/plugins/create", no_new_plugin),
    *(Route(method, path, no_plugin) for method, path in PLUGIN),
    Route("GET", "/images/search", no_search),
)
