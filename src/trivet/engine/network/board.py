"""What the fleet's store says about networks across hosts, read into values. Pure.

    generation                    counts networks made, so that two hosts can't choose the same subnet at once
    network/NAME                  Shared     the network, as every host sets it up
    address/NETWORK/ADDRESS       Claim      whose it is, until the instance is removed
    endpoint/NETWORK/INSTANCE     Peer       a running instance and where it is; goes with the lease of its host

Other hosts are trusted as far as being members goes; what can't be true is left out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from trivet.engine.network.model import OVERLAY, VNI, Endpoint, NetworkRecord
from trivet.kernel.rtneighbour import Entry
from trivet.store.etcd import Change

T = TypeVar("T", bound=msgspec.Struct)
GENERATION = "generation"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_ID = re.compile(r"[0-9a-f]{64}")


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """A network, without what is each host's own."""

    id: str
    name: str
    created: str
    number: int
    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""
    ip_range: str = ""
    internal: bool = False
    mtu: int = 1450
    labels: dict[str, str] = {}
    options: dict[str, str] = {}


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Whose an address is."""

    host: str
    instance: str
    name: str


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A running instance: `tunnel` is the address of its host, `leaving` one isn't found by name any more."""

    host: str
    hostname: str
    tunnel: str
    name: str
    mac: str
    addresses: list[str]
    aliases: list[str] = []
    leaving: bool = False


def network_key(name: str) -> str:
    """Say where a network is kept."""
    return f"network/{name}"


def address_key(network: str, address: str) -> str:
    """Say where an address is kept; "" for the place of all."""
    return f"address/{network}/{address}"


def endpoint_key(network: str, instance: str) -> str:
    """Say where a running instance is kept."""
    return f"endpoint/{network}/{instance}"


def share(record: NetworkRecord) -> Shared:
    """Take from a record what all hosts have in common."""
    names = [field.name for field in msgspec.structs.fields(Shared) if field.name != "number"]
    return Shared(number=int(record.options[VNI]), **{name: getattr(record, name) for name in names})


def adopt(shared: Shared, interface: str) -> NetworkRecord:
    """Make a record of what another host shares. Raises `ValueError` for what can't be a network."""
    for version, subnet, gateway in ((4, shared.subnet, shared.gateway), (6, shared.subnet6, shared.gateway6)):
        if (subnet or gateway) and ipaddress.ip_address(gateway) not in ipaddress.ip_network(subnet):
            raise ValueError("its gateway is not in its subnet")
        if subnet and ipaddress.ip_network(subnet).version != version:
            raise ValueError("its subnet is of the other IP version")
    if not (_NAME.fullmatch(shared.name) and _ID.fullmatch(shared.id) and 0 < shared.number < 1 << 24):
        raise ValueError("its name, id or number is none")
    if not 68 <= shared.mtu <= 65535 or not (shared.subnet or shared.subnet6):
        raise ValueError("its MTU or subnet is none")
    values = msgspec.structs.asdict(shared)
    values["options"] = {**shared.options, VNI: str(values.pop("number"))}
    return NetworkRecord(driver=OVERLAY, interface=interface, **values)


class Board:
    """The state of the store, kept by what is read from it."""

    def __init__(self) -> None:
        self.networks: dict[str, Shared] = {}
        self.claims: dict[str, dict[str, Claim]] = {}
        self.peers: dict[str, dict[str, Peer]] = {}

    def apply(self, changes: Iterable[Change]) -> set[str]:
        """Take changes in; the ids of networks whose members changed."""
        touched = set()
        for change in changes:
            kind, _, rest = change.key.partition("/")
            first, _, second = rest.partition("/")
            if kind == "network":
                _put(self.networks, rest, change.value, Shared)
            elif kind == "address":
                _put(self.claims.setdefault(first, {}), second, change.value, Claim)
            elif kind == "endpoint":
                _put(self.peers.setdefault(first, {}), second, change.value, Peer)
                touched.add(first)
        return touched

    def elsewhere(self, network: str, host: str) -> set[int]:
        """List the addresses that instances of other hosts have, as numbers."""
        found = set()
        for address, claim in list(self.claims.get(network, {}).items()):
            if claim.host != host and (known := _address(address)):
                found.add(int(known))
        return found

    def entries(self, record: NetworkRecord, host: str) -> set[Entry]:
        """Compute what a network's tunnel has to know about instances of other hosts."""
        found: dict[tuple[str, bool], Entry] = {}
        for peer, addresses in self._valid(record, host):
            found[peer.mac, False] = Entry(peer.mac, ipaddress.ip_address(peer.tunnel))
            for address in addresses:
                found[str(address), True] = Entry(peer.mac, address, neighbour=True)
        return set(found.values())

    def far(self, record: NetworkRecord, host: str) -> list[tuple[Endpoint, Peer]]:
        """List the instances of other hosts as members of a network."""
        own = {instance: peer for instance, peer in self.peers.get(record.id, {}).items() if peer.host != host}
        found = []
        for instance, peer in own.items():
            addresses = [str(each) for each in _inside(record, peer)]
            four, six = ([each for each in addresses if (":" in each) == wanted] for wanted in (False, True))
            if not addresses or not _NAME.fullmatch(peer.name):
                continue
            endpoint = Endpoint(
                instance=instance,
                name=peer.name,
                network=record.id,
                form="netns",
                address=four[0] if four else "",
                address6=six[0] if six else "",
                mac=peer.mac,
                aliases=tuple(alias for alias in peer.aliases if _NAME.fullmatch(alias)),
            )
            found.append((endpoint, peer))
        return found

    def _valid(
        self, record: NetworkRecord, host: str
    ) -> Iterator[tuple[Peer, list[ipaddress.IPv4Address | ipaddress.IPv6Address]]]:
        for peer in list(self.peers.get(record.id, {}).values()):
            if peer.host == host or not _MAC.fullmatch(peer.mac) or int(peer.mac[:2], 16) & 1:
                continue
            tunnel = _address(peer.tunnel)
            if tunnel and not (tunnel.is_multicast or tunnel.is_unspecified or tunnel.is_loopback):
                yield peer, _inside(record, peer)


def _inside(record: NetworkRecord, peer: Peer) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Keep the addresses of a peer that its network has, except the gateway's: that is here."""
    subnets = [ipaddress.ip_network(subnet) for _, subnet, _ in record.ranges()]
    gateways = [gateway for _, _, gateway in record.ranges()]
    found = [_address(address) for address in peer.addresses]
    return [each for each in found if each and str(each) not in gateways and any(each in subnet for subnet in subnets)]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _put(table: dict[str, T], key: str, value: bytes | None, kind: type[T]) -> None:
    table.pop(key, None)
    if value is not None:
        try:
            table[key] = msgspec.json.decode(value, type=kind)
        except msgspec.DecodeError:  # of a later version, or nobody's
            return
