"""The host's own firewall, which has the last word: chains that drop what is forwarded unless they know it.

nftables       iptables is among them where it is nftables inside, as in today's distributions
ip_tables      the older one, beside it: a packet passes both
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from trivet.engine.network.model import NetworkRecord
from trivet.engine.network.publish import TABLE_PREFIX
from trivet.kernel import nftables, xtables

_LAST = re.compile(r"^(counter packets \d+ bytes \d+ )?(drop|reject( with .*)?)$")
_LAST_OLDER = re.compile(r"^-A FORWARD -j (DROP|REJECT)\b")
_INTERFACE = re.compile(r"[\w.-]+[*+]?")
_VERSIONS = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}


class Wall(msgspec.Struct, frozen=True, kw_only=True):
    """A chain that drops, by its policy or its last rule, what none of its rules accepts. `repair` has a `{}`."""

    chain: str
    versions: tuple[int, ...]
    rules: str
    repair: str

    def knows(self, interface: str) -> bool:
        """Tell whether somebody thought of an interface: one of the rules names it, or names like it."""
        return any(
            word == interface or (word[-1] in "*+" and interface.startswith(word[:-1]))
            for word in _INTERFACE.findall(self.rules)
        )


def walls(networks: Iterable[NetworkRecord], version: int = 0) -> Iterator[tuple[Wall, str]]:
    """Find what stands in the way of networks, of one IP version or of both, each with an interface it doesn't know."""
    bridges = [(record.interface, _versions(record)) for record in networks if record.bridged]
    for wall in (*_nftables(), *_older()):
        asked = {version} if version else set(wall.versions)
        for interface, versions in bridges:
            if asked & versions & set(wall.versions) and not wall.knows(interface):
                yield wall, interface
                break


def _versions(record: NetworkRecord) -> set[int]:
    return {4} if not record.subnet6 else {4, 6} if record.subnet else {6}


def _nftables() -> Iterator[Wall]:
    for family, table, chain, drops in nftables.forward_chains():
        if table.startswith(TABLE_PREFIX):
            continue
        rules = nftables.show_chain(f"{family} {table}", chain)
        if drops or _LAST.match(_last(rules)):
            yield Wall(
                chain=f"chain {chain} of table {family} {table}",
                versions=_VERSIONS[family],
                rules=rules,
                repair=f"nft insert rule {family} {table} {chain} iifname {{}} accept, and with oifname too",
            )


def _older() -> Iterator[Wall]:
    for version in (4, 6):
        rules = xtables.show_chain("FORWARD", version)
        if "-P FORWARD DROP" in rules.splitlines() or _LAST_OLDER.match(_last(rules)):
            name = xtables.program(version)
            yield Wall(
                chain=f"chain FORWARD of {name}",
                versions=(version,),
                rules=rules,
                repair=f"{name} -I FORWARD -i {{}} -j ACCEPT, and with -o too",
            )


def _last(rules: str) -> str:
    """Take the last rule out of a chain as it is shown."""
    return next((line.strip() for line in reversed(rules.splitlines()) if line.strip(" \t}")), "")
