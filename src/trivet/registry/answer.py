"""What registries answer: bodies of bounded size, and refusals turned into the errors that fit."""

from __future__ import annotations

import os
from collections.abc import Collection

import aiohttp
import msgspec

from trivet.registry.error import AccessDenied, LoginRequired, NotInRegistry, RegistryUnavailable, UploadRefused

GOOD = frozenset({200, 206})
FULL = 507  # no room: trying again doesn't help (RFC 4918, 11.5)
SMALL = 1 << 16  # bytes of an error's body that are looked at


class _ErrorLine(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _ErrorBody(msgspec.Struct, frozen=True):
    errors: tuple[_ErrorLine, ...] = ()


async def expect(
    answer: aiohttp.ClientResponse, domain: str, repository: str, what: str, good: Collection[int] = GOOD
) -> None:
    """Turn an answer whose status isn't `good` into an error about `what`."""
    if answer.status in good:
        return
    reason = _message(await body_of(answer, domain, SMALL))
    if answer.status == 404 and answer.method in ("GET", "HEAD"):
        raise NotInRegistry(domain, what)
    if answer.status == 401:
        raise LoginRequired(domain, repository)
    if answer.status == 403:
        raise AccessDenied(domain, repository, reason)
    if answer.status == 429:
        raise RegistryUnavailable(domain, f"it limits how often we may ask for {repository}")
    if (answer.status < 500 or answer.status == FULL) and answer.method not in ("GET", "HEAD"):
        raise UploadRefused(domain, what, reason or f"status {answer.status}")
    raise RegistryUnavailable(domain, f"it answers {answer.status} for {what}{': ' + reason if reason else ''}")


async def body_of(answer: aiohttp.ClientResponse, domain: str, limit: int) -> bytes:
    """Read a small body, at most `limit` bytes of it and one more."""
    body = bytearray()
    try:
        async for piece in answer.content.iter_chunked(1 << 16):
            body += piece
            if len(body) > limit:
                return bytes(body[: limit + 1])
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RegistryUnavailable(domain, reason_of(error)) from error
    return bytes(body)


def _message(body: bytes) -> str:
    """Find a registry's own words in an error body; printable and short."""
    try:
        lines = msgspec.json.decode(body, type=_ErrorBody).errors
    except msgspec.DecodeError:
        return ""
    text = "; ".join(line.message or line.code for line in lines)
    return "".join(letter for letter in text if letter.isprintable())[:200]


def reason_of(error: BaseException) -> str:
    """Say in a few words why a request got no answer."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        code = error.os_error.errno
        return (os.strerror(code) if code and code > 0 else error.os_error.strerror or str(error.os_error)).lower()
    return str(error) or type(error).__name__
