"""Wire shapes of removals."""

from __future__ import annotations

import msgspec


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal or a prune took away, and the bytes it freed."""

    untagged: list[str] = []
    deleted: list[str] = []
    freed: int = 0


class PruneRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`prune`: kinds of instances, networks, volumes, build, templates, images, layer blobs; `all` of them, also what
    has a name.

    With `anonymous` volumes that have a name stay all the same.
    """

    kinds: list[str]
    all: bool = False
    anonymous: bool = False
    dry_run: bool = False
