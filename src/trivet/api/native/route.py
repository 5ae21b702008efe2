"""Routes as data: one row gives the handler, the OpenAPI entry and the reference page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from trivet.base.error import InvalidArgument
from trivet.engine.engine import Engine

T = TypeVar("T")
Handler = Callable[[Engine, web.Request], Awaitable[web.StreamResponse]]

BODY_LIMIT = 4 << 20
NDJSON = "application/x-ndjson"


@dataclass(frozen=True)
class Route:
    """One method and path. `body` and `answer` are the shapes; `stream` says in what form the answer flows."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: Any = None
    answer: Any = None
    query: tuple[str, ...] = ()
    stream: str = ""


def answer(value: Any, status: int = 200) -> web.Response:
    """Answer with a record or a list of records."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def nothing() -> web.Response:
    """Answer that it is done."""
    return web.Response(status=204)


async def body(request: web.Request, shape: type[T]) -> T:
    """Read the request's JSON. Raises `InvalidArgument` with the path of the first mistake."""
    raw = await request.content.read(BODY_LIMIT + 1) if request.body_exists else b""
    while len(raw) <= BODY_LIMIT and (more := await request.content.read(BODY_LIMIT + 1 - len(raw))):
        raw += more
    if len(raw) > BODY_LIMIT:
        raise InvalidArgument(f"the request's body is larger than {BODY_LIMIT >> 20} MiB")
    return decode(raw, shape)


def decode(raw: bytes | str, shape: type[T]) -> T:
    """Decode JSON from a client into `shape`."""
    try:
        return msgspec.json.decode(raw, type=shape)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"the request cannot be read: {error}") from error


def flag(request: web.Request, name: str) -> bool:
    """Read a yes/no query parameter; absent is no."""
    return request.query.get(name, "0").lower() in ("1", "true", "yes")


def number(request: web.Request, name: str, default: float) -> float:
    """Read a number from the query. Raises `InvalidArgument`."""
    text = request.query.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise InvalidArgument(f"query parameter {name}={text!r} is not a number") from None


def ref(request: web.Request, name: str = "ref") -> str:
    """Read the object's name from the path."""
    return request.match_info[name]


def required(request: web.Request, name: str) -> str:
    """Read a query parameter that must be there. Raises `InvalidArgument`."""
    value = request.query.get(name, "")
    if not value:
        raise InvalidArgument(f"query parameter {name} is missing")
    return value


def filters(request: web.Request) -> dict[str, list[str]]:
    """Read every `filter=key=value`. Raises `InvalidArgument` for one without a value."""
    found: dict[str, list[str]] = {}
    for text in request.query.getall("filter", []):
        key, sign, value = text.partition("=")
        if not sign:
            raise InvalidArgument(f"filter {text!r} has no value", hint="--filter KEY=VALUE")
        found.setdefault(key, []).append(value)
    return found
