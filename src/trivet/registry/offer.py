"""Credentials that somebody brings along for one operation, instead of those that are remembered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from trivet.registry.auth import Credentials

Lookup = Callable[[str], Awaitable[Credentials | None]]
_BROUGHT: ContextVar[Lookup | None] = ContextVar("brought", default=None)


@contextmanager
def asking(lookup: Lookup) -> Iterator[None]:
    """Ask `lookup` for a registry's credentials from here on, also in tasks begun meanwhile."""
    token = _BROUGHT.set(lookup)
    try:
        yield
    finally:
        _BROUGHT.reset(token)


@contextmanager
def offering(domain: str, credentials: Credentials | None) -> Iterator[None]:
    """Use these for what is asked of one registry from here on; no mirror gets them."""

    async def lookup(asked: str) -> Credentials | None:
        return credentials if asked == domain else None

    with asking(lookup):
        yield


async def offered(domain: str) -> Credentials | None:
    """Tell what was brought along for a registry."""
    lookup = _BROUGHT.get()
    return await lookup(domain) if lookup else None
