"""`--link INSTANCE[:ALIAS]` → a link."""

from __future__ import annotations

from argparse import ArgumentTypeError

from trivet.client.schema_network import LinkRequest


def link(text: str) -> LinkRequest:
    """Read it; without an alias the name is one. Raises ArgumentTypeError."""
    name, colon, alias = text.partition(":")
    if not name or ":" in alias or (colon and not alias):
        raise ArgumentTypeError(f"{text!r} is not INSTANCE or INSTANCE:ALIAS")
    return LinkRequest(instance=name, alias=alias or name)
