"""Who may talk to whom, by labels: policies as data, the rules that follow from them, and what they say of a packet.

    chain   policies    what is forwarded, unless it belongs to a connection that is there already
            policy_in   comes to an instance that an ingress is about: what is allowed returns, the rest is dropped
            policy_out  the same for what goes from an instance

A policy takes away and never opens: what returns still has to pass the rules for networks and published ports.
Within one bridge the kernel asks these chains only with br_netfilter; `Networks.load` sees to that.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from trivet.client.schema_policy import Allowance, Peer, PolicyPort, PolicyRequest
from trivet.engine.network.model import Endpoint
from trivet.kernel.nftables import Chain, Set

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Way = Literal["in", "out"]
Labels = Mapping[str, Mapping[str, str]]
PATIENCE = "limit rate 20/second burst 50 packets"
_SIDES: dict[Way, tuple[str, str]] = {"in": ("daddr", "saddr"), "out": ("saddr", "daddr")}
ENTRY = "ct state != { established, related } jump policies"


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that is in force."""

    id: str
    request: PolicyRequest


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """Instances' endpoints and labels (by instance), and the policies about them."""

    endpoints: Sequence[Endpoint] = ()
    labels: Labels = {}
    policies: Sequence[PolicyRequest] = ()

    def selected(self, labels: Mapping[str, str], version: int) -> list[str]:
        """List the addresses of instances with these labels."""
        found = [each for each in self.endpoints if _selects(labels, self.labels.get(each.instance, {}))]
        return [text for each in found if (text := each.address if version == 4 else each.address6)]


def allowances(policy: PolicyRequest, way: Way) -> list[Allowance] | None:
    """Return what a policy says of a way; None is nothing."""
    return policy.ingress if way == "in" else policy.egress


def allowed(people: Population, way: Way, own: Address, other: Address | None, protocol: str, port: int) -> bool:
    """Tell whether policies let a packet pass on one side of it; `own` is the address they may be about."""
    about = [
        found
        for each in people.policies
        if (found := allowances(each, way)) is not None and str(own) in people.selected(each.labels, own.version)
    ]
    return not about or any(_fits(people, each, other, protocol, port) for found in about for each in found)


def held(people: Population, way: Way = "in") -> frozenset[str]:
    """List the addresses that only some may come to, or that may go only to some."""
    about = [each for each in people.policies if allowances(each, way) is not None]
    return frozenset(
        address for each in about for version in (4, 6) for address in people.selected(each.labels, version)
    )


def group(table: str) -> int:
    """Number the log group of an engine."""
    return 1000 + zlib.crc32(table.encode()) % 60000


def sets(people: Population) -> Iterator[Set]:
    """Write the sets that the rules look into."""
    for version, suffix, kind in ((4, "", "ipv4_addr"), (6, "6", "ipv6_addr")):
        for way in _SIDES:
            about = [each for each in people.policies if allowances(each, way) is not None]
            held = {address for each in about for address in people.selected(each.labels, version)}
            yield Set(name=f"held_{way}{suffix}", key=kind, elements=tuple(sorted(held)))
        for number, policy in enumerate(people.policies):
            own = tuple(people.selected(policy.labels, version))
            yield Set(name=f"p{number}{suffix}", key=kind, elements=own)
            for name, peer in _peers(number, policy):
                if peer.labels is not None:
                    yield Set(name=f"{name}{suffix}", key=kind, elements=tuple(people.selected(peer.labels, version)))


def chains(people: Population, table: str) -> Iterator[Chain]:
    """Write the chains; nothing where there are no policies."""
    number = group(table)
    for way in _SIDES:
        yield Chain(name=f"policy_{way}", rules=tuple(_rules(people, way, number)))
    asks = [
        f"{family} {_SIDES[way][0]} @held_{way}{suffix} jump policy_{way}"
        for way in _SIDES
        for family, suffix in (("ip", ""), ("ip6", "6"))
    ]
    # Neighbours find one another without connections; guard.py sees to it that they speak for themselves.
    neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } return"
    yield Chain(name="policies", rules=(neighbours, *asks))


def asks(way: Way, version: int) -> str:
    """Write the rule that leads to a way's chain."""
    return (
        f"{'ip' if version == 4 else 'ip6'} {_SIDES[way][0]} @held_{way}{'' if version == 4 else '6'} jump policy_{way}"
    )


def _rules(people: Population, way: Way, number: int) -> Iterator[str]:
    for index, policy in enumerate(people.policies):
        for position, allowance in enumerate(allowances(policy, way) or ()):
            for match in _matches(index, position, way, allowance):
                if policy.log:
                    yield f'{match}{PATIENCE} log prefix "{way} allow {policy.name}" group {number}'
                yield f"{match}return"
    yield f'{PATIENCE} log prefix "{way} deny" group {number}'
    yield "drop"


def _matches(index: int, position: int, way: Way, allowance: Allowance) -> Iterator[str]:
    own, other = _SIDES[way]
    for family, suffix, version in (("ip", "", 4), ("ip6", "6", 6)):
        head = f"{family} {own} @p{index}{suffix} "
        for place, peer in enumerate(allowance.peers or [None]):
            if peer is None:
                who = ""
            elif peer.labels is not None:
                who = f"{family} {other} @{_name(index, way, position, place)}{suffix} "
            elif ipaddress.ip_network(peer.cidr).version != version:
                continue
            else:
                but = f"{family} {other} != {{ {', '.join(peer.excluding)} }} " if peer.excluding else ""
                who = f"{family} {other} {peer.cidr} {but}"
            for ports in _ports(allowance.ports):
                yield f"{head}{who}{ports}"


def _ports(ports: list[PolicyPort]) -> list[str]:
    if not ports:
        return [""]
    found = []
    for protocol in ("tcp", "udp"):
        ranges = _merged([(each.first, each.last) for each in ports if each.protocol == protocol])
        if ranges:
            text = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)
            found.append(f"{protocol} dport {{ {text} }} ")
    return found


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that overlap: in one set they may not."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def _peers(number: int, policy: PolicyRequest) -> Iterator[tuple[str, Peer]]:
    for way in _SIDES:
        for position, allowance in enumerate(allowances(policy, way) or ()):
            for place, peer in enumerate(allowance.peers):
                yield _name(number, way, position, place), peer


def _name(number: int, way: Way, position: int, place: int) -> str:
    return f"p{number}_{way}{position}_{place}"


def _selects(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


def _fits(people: Population, each: Allowance, other: Address | None, protocol: str, port: int) -> bool:
    if each.ports and not any(one.protocol == protocol and one.first <= port <= one.last for one in each.ports):
        return False
    return not each.peers or any(_is(people, peer, other) for peer in each.peers)


def _is(people: Population, peer: Peer, other: Address | None) -> bool:
    if other is None:
        return False
    if peer.labels is not None:
        return str(other) in people.selected(peer.labels, other.version)
    network = ipaddress.ip_network(peer.cidr)
    inside = other.version == network.version and other in network
    return inside and not any(other in ipaddress.ip_network(each) for each in peer.excluding)
