"""Credentials that somebody brings along for one operation, instead of those that are remembered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from trivet.registry.auth import Credentials

_BROUGHT: ContextVar[tuple[str, Credentials] | None] = ContextVar("brought", default=None)


@contextmanager
def offering(domain: str, credentials: Credentials | None) -> Iterator[None]:
    """Use these for what is asked of one registry from here on, also in tasks begun meanwhile; no mirror gets them."""
    token = _BROUGHT.set((domain, credentials) if credentials else None)
    try:
        yield
    finally:
        _BROUGHT.reset(token)


def offered(domain: str) -> Credentials | None:
    """Tell what was brought along for a registry."""
    found = _BROUGHT.get()
    return found[1] if found and found[0] == domain else None
