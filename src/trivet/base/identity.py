"""Ids and names of objects."""

from __future__ import annotations

import re
import secrets

from trivet.base.error import InvalidArgument

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}\Z")

_ADJECTIVES = (
    "able amber brave bright brisk calm clever cool dapper eager fair fleet gentle glad grand hardy keen kind "
    "lively lucid mellow merry neat nimble noble patient plucky polite proud quick quiet ready royal sharp shy "
    "silent sleek smart solid steady stout sunny swift tidy true vivid warm wise witty zesty"
).split()
_NOUNS = (
    "anvil arch basin beacon bench bridge cairn candle castle chisel cloister dome easel ferry forge fountain gable "
    "gate harbor hearth kettle kiln lantern lattice ledge loom mill mortar oar obelisk pier pillar plumb portal pulley "
    "quarry rafter ramp sail sextant shaft spindle spire stove tower trestle trivet truss vault weir windmill"
).split()


def new_id() -> str:
    """Make an id: 64 hexadecimal digits from the system's randomness, as Docker's are."""
    return secrets.token_hex(32)


def new_name() -> str:
    """Make a pronounceable name for an instance that was given none."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.token_hex(2)}"


def check_name(kind: str, name: str) -> str:
    """Return `name` if it may be used for an object of `kind`. Raises `InvalidArgument`."""
    if not NAME.match(name):
        raise InvalidArgument(
            f"invalid {kind} name {name!r}",
            hint="use letters, digits, '_', '.' and '-', beginning with a letter or digit, at most 128",
        )
    return name
