"""Routes as data, and how Docker's clients spell flags, filters and bodies."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from trivet.api.docker import field
from trivet.api.native.route import BODY_LIMIT
from trivet.base.error import InvalidArgument
from trivet.engine.engine import Engine

log = logging.getLogger(__name__)
T = TypeVar("T")
Handler = Callable[[Engine, web.Request], Awaitable[web.StreamResponse]]
Filters = dict[str, list[str]]

NO = frozenset({"", "0", "no", "false", "none"})


@dataclass(frozen=True)
class Route:
    """One method and path below the version prefix; `query` names the parameters that are read, `body` the shape
    of a JSON body.

    docs/docker.md has a row for each, and the tests fail when one of them was not used.
    """

    method: str
    path: str
    handler: Handler
    query: tuple[str, ...] = ()
    body: type[Any] | None = None


def answer(value: Any, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(status=status, body=msgspec.json.encode(value) + b"\n", content_type="application/json")


def nothing(status: int = 204) -> web.Response:
    """Answer that it is done."""
    return web.Response(status=status)


def name(request: web.Request) -> str:
    """Read the object's name from the path; Docker's own names begin with a slash."""
    return request.match_info["name"].lstrip("/")


def flag(request: web.Request, key: str, default: bool = False) -> bool:
    """Read a yes/no query parameter by Docker's rule: everything but a few words is yes."""
    text = request.query.get(key)
    return default if text is None else text.strip().lower() not in NO


def whole(request: web.Request, key: str, default: int) -> int:
    """Read a whole number from the query. Raises `InvalidArgument`."""
    text = request.query.get(key, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax') from None


def filters(request: web.Request) -> Filters:
    """Read `filters`: JSON of lists, or of objects whose keys are the values (API before 1.22, and Go's clients)."""
    text = request.query.get("filters", "")
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool]])
    except msgspec.DecodeError as error:
        raise InvalidArgument("invalid filter") from error
    return {key: list(values) for key, values in found.items() if values}


async def body(request: web.Request, shape: type[T]) -> T:
    """Read the request's JSON; an empty body, or null, is `{}`. Raises `InvalidArgument` with a mistake's path."""
    raw = bytearray()
    async for chunk in request.content.iter_chunked(1 << 16):
        raw += chunk
        if len(raw) > BODY_LIMIT:
            raise InvalidArgument(f"the request's body is larger than {BODY_LIMIT >> 20} MiB")
    try:
        document = _without_null(msgspec.json.decode(bytes(raw) or b"{}") or {})
        request["said"] = document
        if log.isEnabledFor(logging.DEBUG):
            where = request.match_info.route.resource
            names = ",".join(dict.fromkeys(field.paths(document, shape)))
            log.debug("docker body %s %s", where.canonical if where else "", names)
        return msgspec.convert(document, shape)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error


def _without_null(value: Any) -> Any:
    """Leave null fields out: to Docker they are the same as missing ones, and docker-py sends many."""
    if isinstance(value, dict):
        return {key: _without_null(each) for key, each in value.items() if each is not None}
    return [_without_null(each) for each in value] if isinstance(value, list) else value
