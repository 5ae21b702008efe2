"""Credentials for the request they come with: X-Registry-Auth for one registry, X-Registry-Config for many."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

import msgspec
from aiohttp import web

from trivet.base.error import InvalidArgument
from trivet.oci import reference as references
from trivet.registry.auth import Credentials
from trivet.registry.offer import Lookup

ONE, MANY = "X-Registry-Auth", "X-Registry-Config"
HUB = frozenset({"https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"})
T = TypeVar("T")


class _Account(msgspec.Struct, frozen=True):
    """Docker's AuthConfig; `identitytoken` stands for a password where a registry gave one."""

    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None


def of_request(request: web.Request) -> Credentials | None:
    """Read the header; None where the client has nothing to say, so that what the engine remembers counts."""
    return _credentials(_read(request, ONE, _Account))


def of_many(request: web.Request) -> Lookup:
    """Read what a build may need: accounts by registry, as clients' configurations name them."""
    found: dict[str, _Account] = _read(request, MANY, dict[str, _Account])
    known = {_domain(name): _credentials(account) for name, account in found.items()}

    async def lookup(domain: str) -> Credentials | None:
        return known.get(domain)

    return lookup


def _domain(name: str) -> str:
    bare = name.removeprefix("https://").removeprefix("http://").split("/")[0]
    return references.DEFAULT_DOMAIN if name in HUB or bare in HUB else bare


def _read(request: web.Request, header: str, shape: type[T]) -> T:
    text = request.headers.get(header, "")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(b"{}" if raw in (b"", b"null") else raw, type=shape)
    except (binascii.Error, msgspec.DecodeError) as error:
        raise InvalidArgument(f"invalid {header} header: {error}") from error


def _credentials(account: _Account) -> Credentials | None:
    if account.username and account.password:
        return Credentials(account.username, account.password)
    return None
