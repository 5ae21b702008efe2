"""The /v1 door as an aiohttp application."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from trivet.api.native import (
    archive,
    artifact,
    build,
    capacity,
    checkpoint,
    image,
    instance,
    machine,
    metric,
    network,
    outcome,
    policy,
    registry,
    secret,
    system,
    volume,
)
from trivet.api.native.openapi import document
from trivet.api.native.route import Handler, answer
from trivet.api.problem import response
from trivet.base.error import NotFound
from trivet.base.version import VERSION
from trivet.build.build import Builder
from trivet.engine.engine import Engine

log = logging.getLogger(__name__)

ROUTES = (
    *system.ROUTES,
    *capacity.ROUTES,
    *metric.ROUTES,
    *instance.ROUTES,
    *checkpoint.ROUTES,
    *machine.ROUTES,
    *outcome.ROUTES,
    *archive.ROUTES,
    *image.ROUTES,
    *artifact.ROUTES,
    *build.ROUTES,
    *volume.ROUTES,
    *secret.ROUTES,
    *network.ROUTES,
    *policy.ROUTES,
    *registry.ROUTES,
)


def application(engine: Engine, builder: Builder) -> web.Application:
    """Make the application; the builder is one the engine doesn't know."""
    app = web.Application(middlewares=[_errors])
    app[build.BUILDER] = builder
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _bind(route.handler, engine))

    async def openapi(request: web.Request) -> web.StreamResponse:
        return answer(document(ROUTES, VERSION))

    app.router.add_get("/v1/openapi.json", openapi)
    return app


def _bind(handler: Handler, engine: Engine) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def bound(request: web.Request) -> web.StreamResponse:
        return await handler(engine, request)

    return bound


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every exception into a problem document; nothing of Python reaches the client."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return response(NotFound(f"no such route: {request.method} {request.path}")) if error.status == 404 else error
    except ConnectionError:
        raise
    except Exception as error:
        return response(error)
