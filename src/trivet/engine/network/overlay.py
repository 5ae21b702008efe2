"""The network `overlay`: a bridge on every host of the fleet, and a VXLAN tunnel between them.

    instance ── bridge ── vxlan ═══ UDP 4789, host to host ═══ vxlan ── bridge ── instance

Every bridge has the gateway's address with the same hardware address: what leaves the network does so from the host
where the instance is. A tunnel learns nothing from packets; it is told where instances are and answers ARP itself, so
nothing is flooded. Nothing is encrypted: whoever can send to the hosts' UDP port 4789 is on the network.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from trivet.base.error import Conflict, Unavailable
from trivet.engine.network.bridge import Bridge, write_sysctl
from trivet.engine.network.forwarding import ALIAS
from trivet.engine.network.model import VNI, NetworkRecord, short
from trivet.kernel import rtneighbour, rtnetlink, rtstack
from trivet.kernel.rtneighbour import Entry
from trivet.kernel.rtstack import Address

PORT = 4789
ROOM = {4: 50, 6: 70}  # what a tunnel's headers take of every packet


class Overlay(Bridge):
    """Networks across hosts. `tunnel` tells this host's address in them, and raises when there is no fleet."""

    def __init__(self, namespaces: Path, tunnel: Callable[[], Address]) -> None:
        super().__init__(namespaces)
        self._tunnel = tunnel

    def create(self, network: NetworkRecord) -> None:
        super().create(network)
        name, found = device(network), rtnetlink.link(device(network))
        if not found:
            number, alias = int(network.options[VNI]), f"{ALIAS}network {network.name}"
            try:
                rtstack.create_vxlan(
                    name, number, self._tunnel(), port=PORT, mtu=network.mtu, master=network.interface, alias=alias
                )
            except FileExistsError as error:
                problem = f"another tunnel of this host has number {number}"
                raise Conflict(f"cannot make the tunnel of network {network.name}: {problem}") from error
        else:
            rtnetlink.set_link(name, up=True, master=network.interface)
        write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0" if network.subnet6 else "1")

    def remove(self, network: NetworkRecord) -> None:
        rtnetlink.delete_link(device(network))
        super().remove(network)

    def problem(self, network: NetworkRecord) -> str:
        found = rtnetlink.link(device(network))
        if not found:
            return f"tunnel {device(network)} is missing"
        if not found.up or not found.master:
            return f"tunnel {device(network)} is down or off its bridge"
        room = underlay_mtu(self._tunnel()) - ROOM[self._tunnel().version]
        if network.mtu > room:
            return f"its MTU {network.mtu} is more than this host can carry: {room}"
        return super().problem(network)

    def tell(self, network: NetworkRecord, wanted: Iterable[Entry]) -> None:
        """Let the tunnel know these instances of other hosts, and no others. A missing tunnel is fine."""
        name = device(network)
        if rtnetlink.link(name):
            known, wanted = rtneighbour.entries(name), set(wanted)
            if known != wanted:
                rtneighbour.change(name, wanted - known, _gone(known, wanted))


def device(network: NetworkRecord) -> str:
    """Name the tunnel's interface."""
    return f"tvx{short(network.interface, network.id)}"


def underlay_mtu(address: Address) -> int:
    """Tell the MTU of the interface that has an address. Raises `Unavailable` if none has."""
    for link in rtnetlink.links():
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        if any(found.ip == address for found in rtnetlink.addresses(link.name, family)):
            return link.mtu
    raise Unavailable(f"no interface of this host has the address {address}", hint="trivetd --advertise-addr ADDRESS")


def tunnel_address(members: Iterable[tuple[str, int]], wanted: str) -> Address:
    """Choose this host's address in tunnels: the wanted one, or the one the store is asked from."""
    if wanted:
        return ipaddress.ip_address(wanted)
    for host, port in members:
        for family, kind, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe:
                try:
                    probe.connect(place)
                except OSError:
                    continue
                found = ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
                if not found.is_loopback:
                    return found
    raise Unavailable(
        "cannot tell by which address other hosts reach this one: its store is on this host",
        hint="trivetd --advertise-addr ADDRESS",
    )


def _gone(known: set[Entry], wanted: set[Entry]) -> set[Entry]:
    """List what is to be forgotten; what is replaced isn't: the kernel has one entry per key, and it is a new one."""
    keys = {_key(entry) for entry in wanted}
    return {entry for entry in known - wanted if _key(entry) not in keys}


def _key(entry: Entry) -> tuple[bool, str]:
    return entry.neighbour, str(entry.address) if entry.neighbour else entry.mac
