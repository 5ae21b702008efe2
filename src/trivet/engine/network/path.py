"""Which way a packet goes: the rules of `ruleset.py` followed on paper, each step with the rule that decides it.

    instance ──▶ guard ──▶ published ──▶ (the host itself)
                               │
                               └──▶ forward ──▶ arriving ──▶ instance, or the world outside

Pure: everything it knows is in `Map`. That it is right is what tests/kernel/test_network_matrix.py is for: it sends
every packet that this page says something about.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

import msgspec

from trivet.client.schema_path import Way, WayStep
from trivet.engine.network import policy
from trivet.engine.network.membership import default_routes
from trivet.engine.network.model import OVERLAY, Endpoint, NetworkRecord
from trivet.engine.network.policy import Population
from trivet.engine.network.relaying import ways
from trivet.engine.network.ruleset import ANY, ANY6, LOOPBACK6, NOBODY, Element, element, inside, map_name

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LOOPBACK = "lo"
PUBLISHED = {
    ("", "_at"): "{but}dnat {family} to {family} daddr . {protocol} dport map @{name}_at",
    ("", ""): "{but}dnat {family} to {protocol} dport map @{name}",
    ("_here", "_at"): "meta nfproto ipv{version} meta l4proto {protocol} redirect to"
    " :{family} daddr . {protocol} dport map @{name}_here_at",
    ("_here", ""): "meta nfproto ipv{version} meta l4proto {protocol} redirect to :{protocol} dport map @{name}_here",
}


class Map(msgspec.Struct, frozen=True, kw_only=True):
    """What is known: networks, endpoints, interfaces that are closed to one another by IP version, and the host's own.

    `own` are the host's addresses; `ways` leads from a subnet to the interface that packets for it leave by.
    """

    networks: Sequence[NetworkRecord]
    endpoints: Sequence[Endpoint]
    people: Population = NOBODY
    closed: Mapping[int, Sequence[str]] = {}
    own: frozenset[Address] = frozenset()
    ways: Sequence[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]] = ()

    def network(self, endpoint: Endpoint) -> NetworkRecord:
        """Look up the network of an endpoint."""
        return next(each for each in self.networks if each.id == endpoint.network)

    def holder(self, address: Address) -> Endpoint | None:
        """Tell whose an address is."""
        text = str(address)
        return next((each for each in self.endpoints if text in (each.address, each.address6) and each.device), None)

    def way(self, address: Address) -> str:
        """Name the interface that packets for an address leave by; "" when there is none."""
        found = [(net.prefixlen, name) for net, name in self.ways if net.version == address.version and address in net]
        return max(found, default=(0, ""))[1]


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """The first packet of a connection: `source` is an instance's id, "" for the host, or an interface for outside."""

    source: str
    address: Address
    port: int
    protocol: str = "tcp"
    outside: bool = False
    origin: Address | None = None  # of who is outside

    @property
    def family(self) -> str:
        return "ip" if self.address.version == 4 else "ip6"


def trace(known: Map, packet: Packet) -> Way:
    """Follow a packet to where it ends."""
    return _Walk(known, packet).run()


class _Walk:
    def __init__(self, known: Map, packet: Packet) -> None:
        self._known, self._packet = known, packet
        self._steps: list[WayStep] = []
        self._translated = False
        self._forwarded = False
        self._port = packet.port
        self._origin = packet.origin

    def run(self) -> Way:
        packet = self._packet
        own = [] if packet.outside else [each for each in self._known.endpoints if each.instance == packet.source]
        if packet.outside or not packet.source or any(each.form == "host" for each in own):
            return self._through_host(packet.source if packet.outside else LOOPBACK)
        if packet.address.is_loopback or any(str(packet.address) in (one.address, one.address6) for one in own):
            return self._end(True, own[0].name if own else "the instance", "it stays in the instance")
        return self._from_instance([each for each in own if each.device])

    def _from_instance(self, own: list[Endpoint]) -> Way:
        packet, pairs = self._packet, [(self._known.network(each), each) for each in own]
        near = next((record for record, _ in pairs if _within(record, packet.address)), None)
        if near and not near.bridged:
            return self._end(True, "", f"on network {near.name} packets don't pass the host: nobody is asked here")
        if near and packet.address not in self._known.own:
            return self._switched(near)
        ways = default_routes(pairs)
        far = next((record for record, _ in pairs if packet.address.version in ways.get(record.id, ())), near)
        if far is None:
            inner = next((record for record, _ in pairs if record.internal and _has(record, packet.address)), None)
            if inner is None:
                return self._end(False, "", "the instance is on no network that could carry it")
            self._step(
                "guard", inside(inner, packet.address.version), f"network {inner.name} is internal, without a way out"
            )
            return self._end(False, "", "dropped")
        if not far.bridged:
            return self._end(True, "", f"on network {far.name} packets don't pass the host: nobody is asked here")
        return self._through_host((near or far).interface)

    def _switched(self, record: NetworkRecord) -> Way:
        """Between two of one network the bridge carries frames; ports that are isolated don't hear one another."""
        holder = self._known.holder(self._packet.address)
        if holder is None and record.driver == OVERLAY:
            self._from(record)
            if self._denied(self._packet.address):
                return self._end(False, "", "dropped by a policy")
            return self._end(True, "", f"is carried to the host of network {record.name} that has it, if one has")
        if holder is None:
            return self._end(False, "", f"nobody on network {record.name} has that address now")
        return self._inside(record, holder)

    def _inside(self, record: NetworkRecord, holder: Endpoint) -> Way:
        word = "drop" if record.apart else "accept"
        why = "keeps its instances apart" if record.apart else "is theirs both"
        rule = f'iifname "{record.interface}" oifname "{record.interface}" {word}'
        self._forwarded = True
        self._from(record)
        if self._denied(ipaddress.ip_address(holder.address if self._version == 4 else holder.address6)):
            return self._end(False, "", "dropped by a policy")
        self._step("arriving", rule, f"network {record.name} {why}")
        return self._end(
            not record.apart, holder.name, "dropped" if record.apart else f"reaches instance {holder.name}"
        )

    def _through_host(self, interface: str) -> Way:
        packet = self._packet
        address = packet.address
        if address.version == 4 and address.is_loopback and interface != LOOPBACK:
            self._step("guard", 'iifname != "lo" ip daddr 127.0.0.0/8 drop', "loopback addresses are the host's own")
            return self._end(False, "", "dropped")
        if address in self._known.own or address.is_loopback:
            found = self._published(address)
            if found is None and (holder := self._carried(address)):
                if why := self._not_carried():
                    return self._end(False, "", f"the engine's relay would carry it, but {why}")
                return self._end(True, holder.name, f"the engine's relay carries it to instance {holder.name}")
            if found is None:
                return self._end(True, "host", "reaches the host itself: nothing is published there")
            if not found.to:
                return self._end(True, "host", f"reaches port {found.to_port} of the host itself")
            address, self._port, self._translated = ipaddress.ip_address(found.to), found.to_port, True
        return self._onward(interface, address)

    def _onward(self, interface: str, address: Address) -> Way:
        holder = self._known.holder(address)
        target = next((each for each in self._known.networks if each.bridged and _within(each, address)), None)
        if interface == LOOPBACK:
            if target is None:
                return self._end(True, "outside", "leaves the host: programs of the host are not filtered")
            if holder is None:
                return self._end(False, "", f"nobody on network {target.name} has address {address} now")
            return self._end(
                True, holder.name, f"reaches instance {holder.name}: programs of the host are not filtered"
            )
        self._forwarded = True
        source = next((each for each in self._known.networks if each.interface == interface and each.bridged), None)
        if source:
            self._from(source)
        if self._denied(address):
            return self._end(False, "", "dropped by a policy")
        return self._arriving(interface, target, holder) if target else self._leaving(interface, address)

    def _arriving(self, interface: str, target: NetworkRecord, holder: Endpoint | None) -> Way:
        self._step("forward", "oifname @bridges jump arriving", f"it goes to network {target.name}")
        if interface == target.interface and holder:
            return self._inside(target, holder)
        source = next((each for each in self._known.networks if each.interface == interface and each.bridged), None)
        for record, rule in ((source, "iifname @internal drop"), (target, "oifname @internal drop")):
            if record and record.internal:
                self._step("arriving", rule, f"network {record.name} is internal")
                return self._end(False, "", "dropped")
        if not self._translated:
            self._step(
                "arriving", "drop", f"it was not asked for, and it is not published: network {target.name} is closed"
            )
            return self._end(False, "", "dropped")
        self._step("arriving", "ct status dnat accept", "it came by a published port")
        if holder is None:
            return self._end(False, "", "the instance is gone")
        return self._end(True, holder.name, f"reaches instance {holder.name}")

    def _leaving(self, interface: str, address: Address) -> Way:
        source = next((each for each in self._known.networks if each.interface == interface and each.bridged), None)
        if source and source.internal:
            self._step("forward", "iifname @internal drop", f"network {source.name} is internal")
            return self._end(False, "", "dropped")
        out, version = self._known.way(address), address.version
        closed = self._known.closed.get(version, ())
        if interface in closed and out in closed:
            suffix = "" if version == 4 else "6"
            rule = f"meta nfproto ipv{version} iifname @closed{suffix} oifname @closed{suffix} drop"
            self._step("forward", rule, f"{interface} and {out} were closed to one another before trivet came")
            return self._end(False, "", "dropped")
        if not out:
            return self._end(False, "", f"the host knows no way to {address}")
        if source and source.masquerade:
            subnet = source.subnet if version == 4 else source.subnet6
            rule = f'{self._packet.family} saddr {subnet} oifname != "{source.interface}" masquerade'
            self._step("leaving", rule, "it gets the host's address")
        return self._end(True, "outside", f"leaves the host by {out}")

    def _published(self, address: Address) -> Element | None:
        """Look into the maps in the order of the rules."""
        packet, items = (
            self._packet,
            [item for each in self._known.endpoints for port in each.ports if (item := element(each, port))],
        )
        version = address.version
        name = map_name(packet.protocol, version=version)
        for (here, at), rule in PUBLISHED.items():
            wanted = map_name(packet.protocol, here, at, version)
            for item in items:
                if str(address) == LOOPBACK6 and not here:
                    continue
                if (item.map, item.port, item.at) == (wanted, packet.port, str(address) if at else ""):
                    text = rule.format(
                        family=packet.family,
                        protocol=packet.protocol,
                        name=name,
                        version=version,
                        but=f"ip6 daddr != {LOOPBACK6} " if version == 6 else "",
                    )
                    self._step("published", text, f"published: {item.render()}")
                    return item
        return None

    def _carried(self, address: Address) -> Endpoint | None:
        """Look for a program of ours that listens there; one that is bound to the very address comes first."""
        for protocol, at, port, target, _ in sorted(
            ways(self._known.endpoints, policy.held(self._known.people)), key=lambda row: row[1] in (ANY, ANY6)
        ):
            everywhere = ANY6 if address.version == 6 else ANY
            if (protocol, port) == (self._packet.protocol, self._packet.port) and at in (str(address), everywhere):
                return self._known.holder(ipaddress.ip_address(target))
        return None

    def _not_carried(self) -> str:
        """Say why the relay has nothing for the packet's source; "" when it has."""
        for each in self._known.endpoints if not self._packet.outside else ():
            if each.instance == self._packet.source and each.device:
                record = self._known.network(each)
                if record.internal and _within(record, self._packet.address):
                    return f"network {record.name} is internal"
                if {each.address, each.address6} & policy.held(self._known.people, "out"):
                    return f"policies restrict where {each.name} may go"
        return ""

    @property
    def _version(self) -> int:
        return self._packet.address.version

    def _from(self, record: NetworkRecord) -> None:
        """Remember by which address an instance sends on a network."""
        for each in self._known.endpoints:
            text = each.address if self._version == 4 else each.address6
            if each.instance == self._packet.source and each.network == record.id and text:
                self._origin = ipaddress.ip_address(text)

    def _denied(self, address: Address) -> bool:
        """Ask the policies, at both ends; a packet that they drop meets nothing else."""
        sides: list[tuple[policy.Way, Address | None, Address | None]] = [
            ("in", address, self._origin),
            ("out", self._origin, address),
        ]
        for way, own, other in sides:
            if own and not policy.allowed(self._known.people, way, own, other, self._packet.protocol, self._port):
                whose = self._known.holder(own)
                self._step("forward", policy.ENTRY, "it begins a connection")
                self._step("policies", policy.asks(way, own.version), f"policies say what may go {way} here")
                self._step(f"policy_{way}", "drop", f"no policy of {whose.name if whose else own} allows it")
                return True
        return False

    def _step(self, chain: str, rule: str, reason: str) -> None:
        self._steps.append(WayStep(chain=chain, rule=rule, reason=reason))

    def _end(self, passes: bool, reaches: str, verdict: str) -> Way:
        return Way(
            passes=passes,
            reaches=reaches if passes else "",
            verdict=verdict,
            steps=self._steps,
            forwarded=self._forwarded,
        )


def _has(record: NetworkRecord, address: Address) -> bool:
    return any(version == address.version for version, _, _ in record.ranges())


def _within(record: NetworkRecord, address: Address) -> bool:
    return any(
        version == address.version and address in ipaddress.ip_network(subnet) for version, subnet, _ in record.ranges()
    )
