"""The wire shapes of secrets: a content goes in, and never comes out."""

from __future__ import annotations

import msgspec


class SecretRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`secret create`; `data` is base64 on the wire."""

    name: str
    data: bytes
    labels: dict[str, str] = {}


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret, without what it holds; `users` are instances."""

    id: str
    name: str
    created: str
    labels: dict[str, str] = {}
    users: list[str] = []
