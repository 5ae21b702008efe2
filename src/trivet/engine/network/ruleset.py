"""Which packets pass: one nftables table per engine, a pure function of networks and published ports.

    map     on_tcp, on_udp        port             → address . port    published on every address of the host
            on_tcp_at, on_udp_at  address . port   → address . port    published on one
            on_tcp_here ...       the same four    → port              of an instance on the host's own network
            on6_tcp ...           all of them for IPv6
    chain   guard       loopback addresses come from and go to loopback only, internal networks to themselves
            incoming    ports asked from outside and by instances   ┐ both look into the maps
            outgoing    ports asked by programs of the host         ┘
            leaving     what leaves a network gets the host's address
            forward     networks are closed to one another and to the outside, but for answers and published ports

A verdict `accept` here ends this table only: a firewall of the host that drops keeps the last word. `drop` is final.
Nothing but our own bridges is touched, with one exception: see `forwarding.py` for `closed`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from trivet.client.schema_network import Port
from trivet.engine.network import policy
from trivet.engine.network.model import Endpoint, NetworkRecord
from trivet.kernel import nftables
from trivet.kernel.nftables import Chain, Set, Table

NOBODY = policy.Population()
PROTOCOLS = ("tcp", "udp")
VERSIONS = (4, 6)
ANY, ANY6, LOOPBACK6 = "0.0.0.0", "::", "::1"
_FAMILY = {4: "ip", 6: "ip6"}
_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """A published port as an element of one of the maps; `to` is "" for an instance on the host's own network."""

    map: str
    port: int
    at: str = ""
    to: str = ""
    to_port: int

    @property
    def key(self) -> bytes:
        """The key as the kernel packs it."""
        return nftables.join(*_parts(self.at), self.port)

    @property
    def value(self) -> bytes:
        """The value as the kernel packs it."""
        return nftables.join(*_parts(self.to), self.to_port)

    def render(self) -> str:
        """Write it as nft does."""
        key = f"{self.at} . {self.port}" if self.at else str(self.port)
        value = f"{self.to} . {self.to_port}" if self.to else str(self.to_port)
        return f"{key} : {value}"


def map_name(protocol: str, here: str = "", at: str = "", version: int = 4) -> str:
    """Name a map; a bare `tcp` would be a keyword of nft's language."""
    return f"on{'6' if version == 6 else ''}_{protocol}{here}{at}"


def map_names() -> list[tuple[str, str, int]]:
    """List all maps of published ports, with protocol and IP version."""
    return [
        (map_name(protocol, here, at, version), protocol, version)
        for version in VERSIONS
        for protocol in PROTOCOLS
        for here in ("", "_here")
        for at in ("", "_at")
    ]


def element(endpoint: Endpoint, port: Port) -> Element | None:
    """Say where a published port goes; None when no rule does it: it is there already, or the relay's."""
    if not endpoint.first and port.host_port == port.container_port:
        return None
    version = 6 if ":" in port.host_address else 4
    at = "" if port.host_address in ("", ANY, ANY6) else port.host_address
    to = endpoint.address6 if version == 6 else endpoint.address
    if endpoint.first and (not to or at == LOOPBACK6):
        return None  # see relaying.py
    name = map_name(port.protocol, "" if endpoint.first else "_here", "_at" if at else "", version)
    return Element(map=name, port=port.host_port, at=at, to=to, to_port=port.container_port)


def table(
    name: str,
    networks: Iterable[NetworkRecord],
    endpoints: Iterable[Endpoint],
    closed: Mapping[int, Iterable[str]],
    people: policy.Population = NOBODY,
) -> Table:
    """Compute the whole table; the chains of policies are in it while there are any."""
    policed = bool(people.policies)
    bridges = [network for network in networks if network.bridged]
    elements = [found for endpoint in endpoints for port in endpoint.ports if (found := element(endpoint, port))]
    return Table(
        name=name,
        sets=(
            _names("bridges", (network.interface for network in bridges)),
            _names("internal", (network.interface for network in bridges if network.internal)),
            _names("closed", closed.get(4, ())),
            _names("closed6", closed.get(6, ())),
            *(
                _map(version, protocol, here, at, elements)
                for version in VERSIONS
                for protocol in PROTOCOLS
                for here in ("", "_here")
                for at in ("", "_at")
            ),
            *(policy.sets(people) if policed else ()),
        ),
        chains=(
            Chain(name="guard", hook="type filter hook prerouting priority raw", rules=_guard(bridges)),
            Chain(name="published", rules=tuple(_all_published())),
            Chain(name="incoming", hook="type nat hook prerouting priority dstnat", rules=_to_published()),
            Chain(name="outgoing", hook="type nat hook output priority -100", rules=_to_published()),
            Chain(name="leaving", hook="type nat hook postrouting priority srcnat", rules=_leaving(bridges)),
            Chain(name="arriving", rules=_arriving(bridges)),
            *(policy.chains(people, name) if policed else ()),
            Chain(
                name="forward",
                hook="type filter hook forward priority filter",
                rules=(*((policy.ENTRY,) if policed else ()), *_forward()),
            ),
        ),
    )


def _parts(address: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    return (ipaddress.ip_address(address),) if address else ()


def _names(name: str, interfaces: Iterable[str]) -> Set:
    return Set(name=name, key="ifname", elements=tuple(f'"{interface}"' for interface in interfaces))


def _map(version: int, protocol: str, here: str, at: str, elements: list[Element]) -> Set:
    name = map_name(protocol, here, at, version)
    address = _TYPE[version]
    return Set(
        name=name,
        key=f"{address} . inet_service" if at else "inet_service",
        value="inet_service" if here else f"{address} . inet_service",
        elements=tuple(item.render() for item in elements if item.map == name),
    )


def _guard(bridges: list[NetworkRecord]) -> tuple[str, ...]:
    # Before address translation: a neighbour that sends to 127.0.0.1 over the wire would otherwise be led to what is
    # published there, and route_localnet would let an instance reach every service on the host's loopback.
    loopback = ('iifname != "lo" ip daddr 127.0.0.0/8 drop', 'iifname != "lo" ip saddr 127.0.0.0/8 drop')
    inner = (inside(network, version) for network in bridges if network.internal for version, _, _ in network.ranges())
    return (*loopback, *inner)


def inside(network: NetworkRecord, version: int) -> str:
    """Write the rule that keeps packets of an internal network in it, whatever route an instance has made itself."""
    if version == 4:
        return f'iifname "{network.interface}" ip daddr != {{ {network.subnet}, 224.0.0.0/4, 255.255.255.255 }} drop'
    return f'iifname "{network.interface}" ip6 daddr != {{ {network.subnet6}, fe80::/10, ff00::/8 }} drop'


def _all_published() -> Iterator[str]:
    for version in VERSIONS:
        for protocol in PROTOCOLS:
            yield from _published(version, protocol)


def _published(version: int, protocol: str) -> tuple[str, ...]:
    family, name = _FAMILY[version], map_name(protocol, version=version)
    here = f"meta nfproto ipv{version} meta l4proto {protocol} redirect to"
    # What comes from ::1 would not find back: the kernel takes it for a stranger's on any other interface.
    but = f"{family} daddr != {LOOPBACK6} " if version == 6 else ""
    return (
        f"{but}dnat {family} to {family} daddr . {protocol} dport map @{name}_at",
        f"{but}dnat {family} to {protocol} dport map @{name}",
        f"{here} :{family} daddr . {protocol} dport map @{name}_here_at",
        f"{here} :{protocol} dport map @{name}_here",
    )


def _to_published() -> tuple[str, ...]:
    return ("fib daddr type local jump published",)


def _leaving(bridges: list[NetworkRecord]) -> tuple[str, ...]:
    rules = ["ip saddr 127.0.0.0/8 oifname @bridges masquerade"]
    for network in bridges:
        # An instance that asks for a port published by its own network must get the answer from whom it asked.
        for version, subnet, _ in network.ranges():
            own = f"{_FAMILY[version]} saddr {subnet}"
            rules.append(f'{own} oifname "{network.interface}" ct status dnat masquerade')
            if not network.internal and network.masquerade:
                rules.append(f'{own} oifname != "{network.interface}" masquerade')
    return tuple(rules)


def _arriving(bridges: list[NetworkRecord]) -> tuple[str, ...]:
    # Frames between two ports of one bridge come by here where br_netfilter is loaded.
    inside = (
        f'iifname "{network.interface}" oifname "{network.interface}" {"drop" if network.apart else "accept"}'
        for network in bridges
    )
    return (
        *inside,
        "iifname @internal drop",
        "oifname @internal drop",
        "ct state established,related accept",
        "ct status dnat accept",
        "drop",
    )


def _forward() -> tuple[str, ...]:
    return (
        "oifname @bridges jump arriving",
        "iifname @internal drop",
        "meta nfproto ipv4 iifname @closed oifname @closed drop",
        "meta nfproto ipv6 iifname @closed6 oifname @closed6 drop",
    )
