"""Connections that are turned into gRPC: `/session`, on which a client is asked, and `/grpc`, on which it asks.

By a session builds get files, secrets and credentials of their client; by the other, buildx talks to its builder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from aiohttp import web

from trivet.api.docker.arrival import Arrivals
from trivet.api.docker.build import BUILDER
from trivet.api.docker.route import Route
from trivet.api.stream import Hijacked
from trivet.base.error import InvalidArgument
from trivet.engine.engine import Engine

if TYPE_CHECKING:
    from trivet.api.docker.buildkit.channel import Channel
    from trivet.api.docker.buildkit.solve import Job

ID = "X-Docker-Expose-Session-Uuid"
Sessions: TypeAlias = "Arrivals[Channel]"
Solves: TypeAlias = "Arrivals[Job]"
SESSIONS = web.AppKey("sessions", Arrivals)
SOLVES = web.AppKey("solves", Arrivals)


def sessions() -> Sessions:
    """Make room for the clients that can be asked."""
    return Arrivals("no active session for {}: context deadline exceeded")


def solves() -> Solves:
    """Make room for the builds that buildx has started."""
    return Arrivals("no such job {}")


async def session(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Turn the connection round: the client answers on it from here on."""
    _upgraded(request)
    key = request.headers.get(ID, "")
    if not key:
        raise InvalidArgument(f"a session has an id in {ID}")
    from trivet.api.docker.buildkit.channel import Channel  # not before the first session: gRPC takes memory

    channel = Channel.of(request)
    try:
        with request.app[SESSIONS].open(key, channel):
            await channel.over.wait()
    finally:
        channel.close()
    return Hijacked()


async def control(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Answer as BuildKit."""
    _upgraded(request)
    from trivet.api.docker.buildkit.control import Control  # likewise
    from trivet.api.docker.buildkit.gateway import Gateway
    from trivet.api.docker.buildkit.service import serve

    jobs = request.app[SOLVES]
    door = Control(engine, request.app[BUILDER], request.app[SESSIONS], jobs)
    await serve(request, (door, Gateway(door, jobs)))
    return Hijacked()


def _upgraded(request: web.Request) -> None:
    wanted = request.headers.get("Upgrade", "")
    if not wanted:
        raise InvalidArgument("no upgrade proto in request")
    if wanted.lower() != "h2c":
        raise InvalidArgument(f"protocol {wanted} not supported")


ROUTES = (Route("POST", "/session", session), Route("POST", "/grpc", control))
