"""Logging in: credentials are tried before they are stored."""

from __future__ import annotations

import asyncio

from trivet.base.error import InvalidArgument
from trivet.oci.reference import DEFAULT_DOMAIN, DOMAIN
from trivet.registry import credential
from trivet.registry.answer import expect
from trivet.registry.auth import Credentials
from trivet.registry.error import LoginFailed, LoginRequired
from trivet.registry.transport import Transport


async def login(registry: str, credentials: Credentials) -> str:
    """Try credentials at a registry and store them; return the file. Raises `LoginFailed`, `RegistryUnavailable`."""
    domain = domain_of(registry)
    if not credentials.user or ":" in credentials.user:
        raise InvalidArgument(f"{credentials.user!r} is not a user name: it is empty or has a colon")
    async with Transport(domain, credentials) as transport:
        try:
            async with transport.request("GET", "", await transport.url("", "")) as answer:
                await expect(answer, domain, "its API", "its API")
        except LoginRequired as error:
            raise LoginFailed(domain, credentials.user) from error
    return str(await asyncio.to_thread(credential.store, domain, credentials))


async def logout(registry: str) -> bool:
    """Forget the credentials stored for a registry; tell whether there were any."""
    return await asyncio.to_thread(credential.forget, domain_of(registry))


def domain_of(text: str) -> str:
    """Read a registry's name as people write it; "" is Docker's. Raises `InvalidArgument`."""
    bare = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    domain = DEFAULT_DOMAIN if bare in ("", "index.docker.io", "index.docker.io/v1") else bare
    if not DOMAIN.fullmatch(domain):
        raise InvalidArgument(f"{text[:100]!r} is not a registry", hint="write HOST or HOST:PORT")
    return domain
