"""The wire shapes of a packet's way: what `network why` asks and is told."""

from __future__ import annotations

import msgspec


class WayStep(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that is met: in which chain, how nft writes it, and what it means here."""

    chain: str
    rule: str
    reason: str


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Where the first packet of a connection ends, as far as trivet's rules decide it.

    `reaches` is an instance's name, "host" or "outside", "" when it is dropped or nobody knows. `forwarded` packets
    pass the host's own firewall too; `warnings` tell what of that kind stands in the way.
    """

    passes: bool
    reaches: str
    verdict: str
    steps: list[WayStep]
    forwarded: bool = False
    warnings: list[str] = []
