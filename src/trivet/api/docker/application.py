"""Docker's door as an aiohttp application."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from trivet.api.docker import (
    absent,
    archive,
    build,
    checkpoint,
    container,
    distribution,
    event,
    exec,
    image,
    measure,
    network,
    registry,
    session,
    stream,
    system,
    top,
    version,
    volume,
    websocket,
)
from trivet.api.docker.buildkit.job import JOBS, Jobs
from trivet.api.docker.error import message, response
from trivet.api.docker.route import Handler
from trivet.base.version import VERSION
from trivet.build.build import Builder
from trivet.engine.engine import Engine
from trivet.engine.instance.status import WrongStatus

log = logging.getLogger(__name__)

ROUTES = (
    *absent.ROUTES,
    *system.ROUTES,
    *event.ROUTES,
    *container.ROUTES,
    *checkpoint.ROUTES,
    *stream.ROUTES,
    *websocket.ROUTES,
    *exec.ROUTES,
    *archive.ROUTES,
    *measure.ROUTES,
    *top.ROUTES,
    *build.ROUTES,
    *session.ROUTES,
    *image.ROUTES,
    *registry.ROUTES,
    *distribution.ROUTES,
    *network.ROUTES,
    *volume.ROUTES,
)
Bound = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(engine: Engine, builder: Builder) -> web.Application:
    """Make the application; the builder is one the engine doesn't know.

    Raises `version.BadMinimum`.
    """
    version.oldest()
    app = web.Application(middlewares=[_errors])
    app[build.BUILDER] = builder
    app[session.SESSIONS] = session.sessions()
    app[session.SOLVES] = session.solves()
    app[JOBS] = Jobs()
    app.on_response_prepare.append(_introduce)
    for route in ROUTES:
        handler = _bind(route.handler, engine, route.path)
        for prefix in ("", r"/v{version:[0-9]+[0-9.]*}"):
            if route.method == "GET":
                app.router.add_get(prefix + route.path, handler, allow_head=False)
            else:
                app.router.add_route(route.method, prefix + route.path, handler)
    return app


def _bind(handler: Handler, engine: Engine, path: str) -> Bound:
    async def bound(request: web.Request) -> web.StreamResponse:
        if wanted := request.match_info.get("version"):
            version.check(wanted)
            request["version"] = wanted
        log.debug("docker %s %s ?%s", request.method, path, ",".join(sorted(set(request.query))))
        try:
            return await handler(engine, request)
        except WrongStatus as error:
            error.id = engine.instances.named(error.name)  # Docker's words have it
            raise

    return bound


async def _introduce(request: web.Request, answer: web.StreamResponse) -> None:
    """Say in every answer who speaks, and which builder there is: clients choose theirs by it."""
    answer.headers.update(
        {
            "Api-Version": version.NEWEST,
            "Docker-Experimental": "true",  # docker's command knows checkpoints only then
            "Ostype": "linux",
            "Builder-Version": "2",
            "Swarm": "inactive",
            "Server": f"Docker/{version.ENGINE} (linux) trivet/{VERSION}",
        }
    )


@web.middleware
async def _errors(request: web.Request, handler: Bound) -> web.StreamResponse:
    """Turn every exception into Docker's shape; a connection that was to be taken over ends then."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        answer = message("page not found", 404) if error.status in (404, 405) else message(error.reason, error.status)
    except ConnectionError:
        raise
    except Exception as error:
        answer = response(error)
    if request.headers.get("Upgrade"):
        answer.force_close()
    return answer
