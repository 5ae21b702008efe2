"""`POST /session`: the connection on which a client lets builds ask it for files, secrets and credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from trivet.api.docker.route import Route
from trivet.api.stream import Hijacked
from trivet.base.error import InvalidArgument, NotFound
from trivet.engine.engine import Engine

if TYPE_CHECKING:
    from trivet.api.docker.buildkit.channel import Channel

ID = "X-Docker-Expose-Session-Uuid"
PATIENCE = 5.0  # seconds between a build and the session it names


class Sessions:
    """The clients that can be asked, by the id that each made up for itself."""

    def __init__(self) -> None:
        self._channels: dict[str, asyncio.Future[Channel]] = {}

    @contextmanager
    def open(self, key: str, channel: Channel) -> Iterator[None]:
        """Keep a client's connection while the block runs."""
        waited = self._channels.get(key)
        if waited is None or waited.done():
            waited = self._channels[key] = asyncio.get_running_loop().create_future()
        waited.set_result(channel)
        try:
            yield
        finally:
            if self._channels.get(key) is waited:
                del self._channels[key]

    async def find(self, key: str) -> Channel:
        """Wait for a client's connection. Raises `NotFound`."""
        waited = self._channels.get(key)
        if waited is None:
            waited = self._channels[key] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(asyncio.shield(waited), PATIENCE)
        except TimeoutError:
            if self._channels.get(key) is waited and not waited.done():
                del self._channels[key]
            raise NotFound(f"no active session for {key[:64]}: context deadline exceeded") from None


SESSIONS = web.AppKey("sessions", Sessions)


async def session(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Turn the connection round: the client answers on it from here on."""
    wanted, key = request.headers.get("Upgrade", ""), request.headers.get(ID, "")
    if not wanted:
        raise InvalidArgument("no upgrade proto in request")
    if wanted.lower() != "h2c":
        raise InvalidArgument(f"protocol {wanted} not supported")
    if not key:
        raise InvalidArgument(f"a session has an id in {ID}")
    from trivet.api.docker.buildkit.channel import Channel  # not before the first session: gRPC takes memory

    channel = Channel(request)
    try:
        with request.app[SESSIONS].open(key, channel):
            await channel.over.wait()
    finally:
        channel.close()
    return Hijacked()


ROUTES = (Route("POST", "/session", session),)
