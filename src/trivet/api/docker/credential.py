"""Credentials that come with a request: X-Registry-Auth, for this request only."""

from __future__ import annotations

import base64
import binascii

import msgspec
from aiohttp import web

from trivet.base.error import InvalidArgument
from trivet.registry.auth import Credentials

HEADER = "X-Registry-Auth"


class _Account(msgspec.Struct, frozen=True):
    """Docker's AuthConfig; `identitytoken` stands for a password where a registry gave one."""

    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None


def of_request(request: web.Request) -> Credentials | None:
    """Read the header; None where the client has nothing to say, so that what the engine remembers counts."""
    text = request.headers.get(HEADER, "")
    if not text:
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        account = msgspec.json.decode(raw or b"{}", type=_Account | None) or _Account()
    except (binascii.Error, msgspec.DecodeError) as error:
        raise InvalidArgument(f"invalid {HEADER} header: {error}") from error
    if not account.username or not account.password:
        return None
    return Credentials(account.username, account.password)
