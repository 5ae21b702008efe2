"""The one table from error kind to HTTP status, and errors as problem documents."""

from __future__ import annotations

import logging
from errno import EACCES, EDQUOT, EMFILE, ENOENT, ENOMEM, ENOSPC, EPERM, EROFS

import msgspec
from aiohttp import web

from trivet.base.error import Denied, Exhausted, Internal, Kind, NotFound, TrivetError
from trivet.client.schema import Problem

log = logging.getLogger(__name__)

STATUS = {
    Kind.NOT_FOUND: 404,
    Kind.ALREADY_EXISTS: 409,
    Kind.CONFLICT: 409,
    Kind.INVALID_ARGUMENT: 400,
    Kind.DENIED: 403,
    Kind.UNAUTHENTICATED: 401,
    Kind.UNAVAILABLE: 503,
    Kind.UNSUPPORTED: 501,
    Kind.EXHAUSTED: 507,
    Kind.TIMED_OUT: 504,
    Kind.CANCELLED: 499,
    Kind.CORRUPT: 422,
    Kind.INTERNAL: 500,
}

BY_ERRNO: dict[int, type[TrivetError]] = {
    ENOSPC: Exhausted,
    EDQUOT: Exhausted,
    EMFILE: Exhausted,
    ENOMEM: Exhausted,
    EACCES: Denied,
    EPERM: Denied,
    EROFS: Denied,
    ENOENT: NotFound,
}


def problem(error: BaseException) -> Problem:
    """Describe any exception to the other side; what isn't ours is logged with its traceback and named Internal."""
    error = as_trivet_error(error)
    return Problem(kind=error.kind, message=error.message, hint=error.hint, exit_code=error.exit_code)


def as_trivet_error(error: BaseException) -> TrivetError:
    """Find the kind an exception belongs to."""
    if isinstance(error, TrivetError):
        return error
    if isinstance(error, OSError) and error.errno:
        return _from_os_error(error)
    log.error("unexpected error", exc_info=error)
    return Internal(f"unexpected {type(error).__name__}: {error}", hint="the engine's log has the details")


def _from_os_error(error: OSError) -> TrivetError:
    """An OSError nobody explained: kind by errno, its own words and file name."""
    kind = BY_ERRNO.get(error.errno or 0)
    if kind is None:
        log.error("unexpected system error", exc_info=error)
        kind = Internal
    where = f"{error.filename}: " if error.filename else ""
    hint = "trivet system df shows what takes the space" if error.errno == ENOSPC else None
    return kind(f"{where}{(error.strerror or str(error)).lower()}", hint=hint)


def response(error: BaseException) -> web.Response:
    """Make the HTTP answer for an exception."""
    known = as_trivet_error(error)
    body = msgspec.json.encode(problem(known))
    return web.Response(status=STATUS[known.kind], body=body, content_type="application/problem+json")
