"""gRPC over a connection that came in as a request: the engine is the client, whoever builds is the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote_plus

from aiohttp import web
from grpclib.client import Channel as GrpcChannel
from grpclib.client import Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from h2.settings import SettingCodes
from multidict import MultiDict
from pure_protobuf.message import BaseMessage

from trivet.api.docker.server import early
from trivet.api.stream import switch
from trivet.base.error import Unavailable
from trivet.build.error import BuildError

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
WINDOW = 4 << 20  # bytes that may be on their way
FRAME = 1 << 20  # bytes that may come at a time: each costs some Python
logging.getLogger("hpack").setLevel(logging.INFO)  # it would tell of each header
M = TypeVar("M", bound=BaseMessage)
Metadata = Mapping[str, list[str]]


class Gone(Unavailable):
    """A client that left while it was asked."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was asked for, but who started the build has gone")


class Refused(BuildError):
    """What a client answers when it doesn't give what it was asked for."""

    def __init__(self, what: str, error: GRPCError) -> None:
        super().__init__(f"{what}: {error.message or error.status.name.lower()}")
        self.absent = error.status in (Status.NOT_FOUND, Status.UNIMPLEMENTED) or "not found" in str(error.message)


class Codec(CodecBase):
    """Protobuf."""

    __content_subtype__ = "proto"

    def encode(self, message: BaseMessage, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: type[BaseMessage]) -> Any:
        try:
            return message_type.loads(data)
        except Exception as error:  # whatever a client's bytes make it stumble over
            raise BuildError(f"the client sent what is no {message_type.__name__.lower()}") from error


def configuration() -> Configuration:
    """Let more be on its way than HTTP/2 does by itself."""
    return Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)


class Protocol(H2Protocol):
    """A connection that was HTTP/1 before; at its end both sides are told."""

    before: asyncio.BaseProtocol | None = None
    over: asyncio.Event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection._connection.update_settings({SettingCodes.MAX_FRAME_SIZE: FRAME})
        self.connection.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.before is not None:
            self.before.connection_lost(exc if isinstance(exc, Exception) else None)
        self.over.set()


class Channel(GrpcChannel):
    """A client's connection, for as long as it lasts."""

    def __init__(self) -> None:
        """Wait for a transport to be connected to `protocol`."""
        super().__init__(codec=Codec(), config=configuration())
        self.over = asyncio.Event()
        self.protocol = Protocol(*self._parts())
        self.protocol.over = self.over
        self._protocol = self.protocol

    @classmethod
    def of(cls, request: web.Request) -> Channel:
        """Take a request's connection over. Raises ConnectionResetError if it is gone."""
        channel = cls()
        channel.protocol.before = request.protocol
        switch(request, SWITCH, channel.protocol, early(request))
        return channel

    def _parts(self) -> Any:
        made = self._protocol_factory()
        return made.handler, made.config, made.h2_config

    async def _create_connection(self) -> H2Protocol:
        """Refuse to connect again: it is the client who does."""
        raise ConnectionResetError("the client is gone")

    async def call(self, method: str, message: BaseMessage, answer: type[M], what: str) -> M:
        """Ask one question, about `what`. Raises `Refused`, `Gone`."""
        async with self.conversation(
            method, type(message), answer, what, cardinality=Cardinality.UNARY_UNARY
        ) as stream:
            await stream.send_message(message, end=True)
            found = await stream.recv_message()
        if found is None:
            raise Gone(what)
        return found

    @contextlib.asynccontextmanager
    async def conversation(
        self,
        method: str,
        outward: type[BaseMessage],
        inward: type[M],
        what: str,
        metadata: Metadata | None = None,
        cardinality: Cardinality = Cardinality.STREAM_STREAM,
    ) -> AsyncIterator[Stream[Any, M]]:
        """Open a stream of messages both ways, about `what`. Raises `Refused`, `Gone`."""
        try:
            async with self.request(method, cardinality, outward, inward, metadata=_spelled(metadata or {})) as stream:
                if cardinality is Cardinality.STREAM_STREAM:
                    await stream.send_request()
                yield stream
        except GRPCError as error:
            raise Refused(what, error) from error
        except (StreamTerminatedError, ConnectionError) as error:
            raise Gone(what) from error


def _spelled(metadata: Metadata) -> MultiDict[str]:
    """Spell lists as BuildKit's headers do: what isn't ASCII makes all of a list percent-encoded, and is announced."""
    found: MultiDict[str] = MultiDict()
    for key, values in metadata.items():
        encoded = not all(value.isascii() and value.isprintable() for value in values)
        for value in values:
            found.add(key, quote_plus(value) if encoded else value)
        if encoded:
            found.add(f"{key}-encoded", "1")
    return found
