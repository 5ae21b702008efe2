"""gRPC that the engine serves, over a connection that came in as a request; and how its errors are told."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from aiohttp import web
from grpclib._typing import IServable
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from trivet.api.docker.buildkit.channel import SWITCH, Codec, Protocol, configuration
from trivet.api.docker.buildkit.message import Empty
from trivet.api.docker.error import text
from trivet.api.docker.server import early
from trivet.api.problem import as_trivet_error
from trivet.api.stream import switch

M = TypeVar("M")


class Failed(Exception):
    """What a client says went wrong on its side; it is told the same again."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = Status(code) if code in Status._value2member_map_ else Status.UNKNOWN


async def answered(stream: Stream[M, Any]) -> M:
    """Receive the one message of a question."""
    message = await stream.recv_message()
    if message is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "a question without a message")
    return message


@contextmanager
def told() -> Iterator[None]:
    """Tell what goes wrong within the block as gRPC does."""
    try:
        yield
    except GRPCError:
        raise
    except Failed as error:
        raise GRPCError(error.code, str(error)) from error
    except Exception as error:
        raise GRPCError(Status.UNKNOWN, text(as_trivet_error(error))) from error  # any other code is put into words


def absent(service: str, names: Collection[str]) -> dict[str, Handler]:
    """Refuse what a service has elsewhere: grpclib's own refusal lacks a header that Go's clients want to see."""

    async def refuse(stream: Stream[Empty, Empty]) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, f"{stream._method_name} is not served here")

    return {f"{service}/{name}": Handler(refuse, Cardinality.UNARY_UNARY, Empty, Empty) for name in names}


async def serve(request: web.Request, services: Collection[IServable]) -> None:
    """Take the request's connection over, and answer on it until the client goes."""
    made: Any = Server(services, codec=Codec(), config=configuration())._protocol_factory()
    protocol = Protocol(made.handler, made.config, made.h2_config)
    protocol.before, protocol.over = request.protocol, asyncio.Event()
    switch(request, SWITCH, protocol, early(request))
    await protocol.over.wait()
