"""Which packets pass: one nftables table per engine, a pure function of networks and published ports.

    map     on_tcp, on_udp        port             → address . port    published on every address of the host
            on_tcp_at, on_udp_at  address . port   → address . port    published on one
            on_tcp_here ...       the same four    → port              of an instance on the host's own network
    chain   guard       loopback addresses come from and go to loopback only
            incoming    ports asked from outside and by instances   ┐ both look into the maps
            outgoing    ports asked by programs of the host         ┘
            leaving     what leaves a network gets the host's address
            forward     networks are closed to one another and to the outside, but for answers and published ports

A verdict `accept` here ends this table only: a firewall of the host that drops keeps the last word. `drop` is final.
Nothing but our own bridges is touched, with one exception: see `forwarding.py` for `closed`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec

from trivet.client.schema import Port
from trivet.engine.network.model import BRIDGE, Endpoint, NetworkRecord
from trivet.kernel import nftables
from trivet.kernel.nftables import Chain, Set, Table

PROTOCOLS = ("tcp", "udp")
ANY = "0.0.0.0"


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


def map_name(protocol: str, here: str = "", at: str = "") -> str:
    """Name a map; a bare `tcp` would be a keyword of nft's language."""
    return f"on_{protocol}{here}{at}"


def element(endpoint: Endpoint, port: Port) -> Element | None:
    """Say where a published port goes; None when it needs no rule (the host's own network, same number)."""
    if not endpoint.address and port.host_port == port.container_port:
        return None
    at = "" if port.host_address in ("", ANY) else port.host_address
    name = map_name(port.protocol, "" if endpoint.address else "_here", "_at" if at else "")
    return Element(map=name, port=port.host_port, at=at, to=endpoint.address, to_port=port.container_port)


def table(name: str, networks: Iterable[NetworkRecord], endpoints: Iterable[Endpoint], closed: Iterable[str]) -> Table:
    """Compute the whole table."""
    bridges = [network for network in networks if network.driver == BRIDGE]
    elements = [found for endpoint in endpoints for port in endpoint.ports if (found := element(endpoint, port))]
    return Table(
        name=name,
        sets=(
            _names("bridges", (network.interface for network in bridges)),
            _names("internal", (network.interface for network in bridges if network.internal)),
            _names("closed", closed),
            *(
                _map(protocol, here, at, elements)
                for protocol in PROTOCOLS
                for here in ("", "_here")
                for at in ("", "_at")
            ),
        ),
        chains=(
            Chain(name="guard", hook="type filter hook prerouting priority raw", rules=_guard()),
            Chain(name="published", rules=tuple(rule for protocol in PROTOCOLS for rule in _published(protocol))),
            Chain(name="incoming", hook="type nat hook prerouting priority dstnat", rules=_to_published()),
            Chain(name="outgoing", hook="type nat hook output priority -100", rules=_to_published()),
            Chain(name="leaving", hook="type nat hook postrouting priority srcnat", rules=_leaving(bridges)),
            Chain(name="arriving", rules=_arriving(bridges)),
            Chain(name="forward", hook="type filter hook forward priority filter", rules=_forward()),
        ),
    )


def _parts(address: str) -> tuple[ipaddress.IPv4Address, ...]:
    return (ipaddress.IPv4Address(address),) if address else ()


def _names(name: str, interfaces: Iterable[str]) -> Set:
    return Set(name=name, key="ifname", elements=tuple(f'"{interface}"' for interface in interfaces))


def _map(protocol: str, here: str, at: str, elements: list[Element]) -> Set:
    name = map_name(protocol, here, at)
    return Set(
        name=name,
        key="ipv4_addr . inet_service" if at else "inet_service",
        value="inet_service" if here else "ipv4_addr . inet_service",
        elements=tuple(item.render() for item in elements if item.map == name),
    )


def _guard() -> tuple[str, ...]:
    # Before address translation: a neighbour that sends to 127.0.0.1 over the wire would otherwise be led to what is
    # published there, and route_localnet would let an instance reach every service on the host's loopback.
    return ('iifname != "lo" ip daddr 127.0.0.0/8 drop', 'iifname != "lo" ip saddr 127.0.0.0/8 drop')


def _published(protocol: str) -> tuple[str, ...]:
    here = f"meta nfproto ipv4 meta l4proto {protocol} redirect to"
    return (
        f"dnat ip to ip daddr . {protocol} dport map @on_{protocol}_at",
        f"dnat ip to {protocol} dport map @on_{protocol}",
        f"{here} :ip daddr . {protocol} dport map @on_{protocol}_here_at",
        f"{here} :{protocol} dport map @on_{protocol}_here",
    )


def _to_published() -> tuple[str, ...]:
    return ("fib daddr type local jump published",)


def _leaving(bridges: list[NetworkRecord]) -> tuple[str, ...]:
    rules = ["ip saddr 127.0.0.0/8 oifname @bridges masquerade"]
    for network in bridges:
        # An instance that asks for a port published by its own network must get the answer from whom it asked.
        rules.append(f'ip saddr {network.subnet} oifname "{network.interface}" ct status dnat masquerade')
        if not network.internal:
            rules.append(f'ip saddr {network.subnet} oifname != "{network.interface}" masquerade')
    return tuple(rules)


def _arriving(bridges: list[NetworkRecord]) -> tuple[str, ...]:
    # Frames between two ports of one bridge come by here where br_netfilter is loaded.
    inside = (f'iifname "{network.interface}" oifname "{network.interface}" accept' for network in bridges)
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
        "iifname @closed oifname @closed drop",
    )
