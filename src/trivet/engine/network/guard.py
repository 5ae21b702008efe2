"""Who an instance may say it is: a table of the bridges' own family, a pure function of the endpoints.

    set     guarded                 interface                        the host's ends of instances
            own_mac                 interface . hardware address     what it may send from
            own_address, 6          interface . address              the same, with the link's own IPv6 address
            own_target              interface . address              whom it may answer for (neighbour discovery)
    chain   sent        all that comes out of an instance, before the bridge learns from it
            pace_rate_out, in   what comes faster than an instance may send or get, where any is limited

An instance has one hardware address and the addresses it was given; nobody else's go out, nor answers for them, nor
what only a router says. Frames that are neither IP nor ARP are dropped, as nobody looks into them. The elements are
there before the interface is: an interface that is in no set isn't looked at.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from trivet.engine.network.model import Endpoint, NetworkRecord
from trivet.kernel import nftables
from trivet.kernel.nftables import Chain, Limit, Set, Table

FAMILY = "bridge"
_TARGET = "@th,64,128"  # nft has no word for the target of neighbour discovery
_KEYS = {
    "guarded": "ifname",
    "own_mac": "ifname . ether_addr",
    "own_address": "ifname . ipv4_addr",
    "own_address6": "ifname . ipv6_addr",
    "own_target": f"iifname . {_TARGET}",
}
SETS = tuple(_KEYS)
PACES = (
    ("rate_out", "type filter hook prerouting priority -301", "iifname"),
    ("rate_in", "type filter hook postrouting priority 300", "oifname"),
)
BURST, LEAST = 4, 1 << 17  # of what a rate is in a second; two packets as large as the kernel makes them
RULES = (
    "iifname != @guarded accept",
    "iifname . ether saddr != @own_mac drop",
    "ether type ip iifname . ip saddr @own_address accept",
    "ether type arp goto sent_arp",
    "ether type ip6 goto sent_ip6",
    "drop",
)
ARP = (
    "arp htype != 1 drop",
    "arp ptype != ip drop",
    "arp hlen != 6 drop",
    "arp plen != 4 drop",
    "iifname . arp saddr ether != @own_mac drop",
    "arp saddr ip 0.0.0.0 accept",  # asking whether an address is taken
    "iifname . arp saddr ip @own_address accept",
    "drop",
)
IP6 = (
    "icmpv6 type { nd-router-advert, nd-redirect } drop",
    f"icmpv6 type nd-neighbor-advert iifname . {_TARGET} != @own_target drop",
    "iifname . ip6 saddr @own_address6 accept",
    f"ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . {_TARGET} @own_target accept",
    "ip6 saddr :: icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept",
    "drop",
)


class Mark(msgspec.Struct, frozen=True):
    """An element of one of the sets: `value` is a hardware address, an address, or "" for the interface alone."""

    set: str
    device: str
    value: str = ""

    @property
    def key(self) -> bytes:
        """The key as the kernel packs it."""
        device = self.device.encode().ljust(16, b"\0")
        if not self.value:
            return device
        mac = self.set == "own_mac"
        value = bytes.fromhex(self.value.replace(":", "")) if mac else ipaddress.ip_address(self.value).packed
        return nftables.join(device, value)

    def render(self) -> str:
        """Write it as nft does."""
        value = hex(int(ipaddress.ip_address(self.value))) if self.set == "own_target" else self.value
        return f'"{self.device}" . {value}' if value else f'"{self.device}"'


def marks(endpoint: Endpoint, network: NetworkRecord) -> Iterator[Mark]:
    """List what an endpoint may be; nothing where nobody is to look."""
    if not endpoint.device or not endpoint.mac or not network.guarded:
        return
    yield Mark("guarded", endpoint.device)
    yield Mark("own_mac", endpoint.device, endpoint.mac)
    if endpoint.address:
        yield Mark("own_address", endpoint.device, endpoint.address)
    for address in filter(None, (endpoint.address6, _link_local(endpoint.mac))):
        yield Mark("own_address6", endpoint.device, address)
        yield Mark("own_target", endpoint.device, address)


def _paces(endpoints: Iterable[Endpoint]) -> tuple[list[Limit], list[Set], list[Chain]]:
    """Write what is dropped because it comes too fast; nothing where nobody is limited."""
    limits, maps, chains = [], [], []
    for way, hook, where in PACES:
        found = [(each, rate) for each in endpoints if each.device and (rate := getattr(each, way))]
        if not found:
            continue
        limits += [
            Limit(name=f"{way}_{each.device}", rate=rate // 8, burst=max(rate // 8 // BURST, LEAST))
            for each, rate in found
        ]
        elements = tuple(f'"{each.device}" : "{way}_{each.device}"' for each, _ in found)
        maps.append(Set(name=way, key="ifname", value="limit", elements=elements))
        chains.append(Chain(name=f"pace_{way}", hook=hook, rules=(f"limit name {where} map @{way} drop",)))
    return limits, maps, chains


def table(name: str, networks: Iterable[NetworkRecord], endpoints: Iterable[Endpoint]) -> Table:
    """Compute the whole table."""
    known = {network.id: network for network in networks}
    there = [each for each in endpoints if each.network in known]
    limits, maps, chains = _paces(there)
    found = [mark for each in there for mark in marks(each, known[each.network])]
    return Table(
        name=name,
        family=FAMILY,
        limits=tuple(limits),
        sets=(
            *maps,
            *(
                Set(name=name_, key=key, elements=tuple(mark.render() for mark in found if mark.set == name_))
                for name_, key in _KEYS.items()
            ),
        ),
        chains=(
            *chains,
            Chain(name="sent_arp", rules=ARP),
            Chain(name="sent_ip6", rules=IP6),
            Chain(name="sent", hook="type filter hook prerouting priority -300", rules=RULES),
        ),
    )


class Guard:
    """The sets of one engine's table, while instances come and go. The owner calls `forget` when it loads the table."""

    LEFT = 64  # elements of interfaces that are gone: harmless, but taking one out means to wait for every processor

    def __init__(self, name: str) -> None:
        self.name = name
        self._left: list[Mark] = []
        self._lock = threading.Lock()

    def add(self, endpoint: Endpoint, network: NetworkRecord) -> None:
        """Let an endpoint be what it is. Raises FileNotFoundError when somebody flushed the table."""
        new = [(mark.set, mark.key, b"") for mark in marks(endpoint, network)]
        nftables.exchange_elements(self.name, (), new, FAMILY, exclusive=False)

    def drop(self, endpoints: Sequence[tuple[Endpoint, NetworkRecord]]) -> None:
        """Take out what endpoints were whose interfaces are gone, sooner or later."""
        with self._lock:
            self._left += [mark for endpoint, network in endpoints for mark in marks(endpoint, network)]
            many = len(self._left) > self.LEFT
        if many:
            self.tidy()

    def tidy(self) -> None:
        """Take out now what was dropped."""
        with self._lock:
            old, self._left = self._left, []
        if old:
            nftables.delete_elements(self.name, [(mark.set, mark.key) for mark in old], FAMILY)

    def forget(self) -> None:
        """Take note that the table holds only what it should."""
        with self._lock:
            self._left = []


def _link_local(mac: str) -> str:
    """Compute the address that an interface gives itself (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    number = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + number))
