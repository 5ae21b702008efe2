"""Why a packet gets through or doesn't: names and addresses as people say them, led along `path.trace`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import InvalidArgument
from trivet.client.schema_network import Port
from trivet.client.schema_path import Way
from trivet.engine.network import path
from trivet.engine.network.model import Endpoint
from trivet.engine.network.wall import walls

if TYPE_CHECKING:
    from trivet.engine.network.network import Networks

HOST, WORLD = "host", "world"
FAR = {4: "192.0.2.1", 6: "2001:db8::1"}  # somewhere (RFC 5737, RFC 3849)


def why(networks: Networks, source: str, target: str, port: int, protocol: str, version: int = 4) -> Way:
    """Tell what becomes of a connection; `source` and `target` are host, world or an instance's id, also an address.

    Instances without IPv4 are asked about over IPv6.

    Raises `InvalidArgument` for what can't be asked.
    """
    if not 1 <= port <= 65535 or protocol not in ("tcp", "udp"):
        raise InvalidArgument(f"{port}/{protocol} is not a port: 1 to 65535 of tcp or udp")
    known = networks.map()
    own = [each for each in known.endpoints if each.instance == source]
    address = _address(target)
    theirs = [each for each in known.endpoints if each.instance == target] if address is None else []
    if any(each.form == "host" for each in theirs):
        target = HOST  # it has the host's own network
    if any(each.address6 for each in (*own, *theirs)) and not all(
        any(each.address or each.form == "host" for each in side) for side in (own, theirs) if side
    ):
        version = 6  # one of them has nothing else
    if address is None:
        address = _place(known, source, target, version) or _meeting(own, theirs, known, version)
    if address is None:
        kind = f"IPv{version} address that a packet could be sent to"
        name = theirs[0].name if theirs else target
        return Way(passes=False, reaches="", verdict=f"{name} has no {kind}", steps=[])
    outside = source == WORLD
    packet = path.Packet(
        source=_way_in(known, address) if outside else "" if source == HOST else source,
        address=address,
        port=port,
        protocol=protocol,
        outside=outside,
        origin=ipaddress.ip_address(FAR[address.version]) if outside else None,
    )
    found = path.trace(known, packet)
    warnings = [*_walls(known, found, source, address.version), *_doors(theirs, packet, found)]
    return msgspec.structs.replace(found, warnings=warnings)


def _address(text: str) -> path.Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _place(known: path.Map, source: str, target: str, version: int) -> path.Address | None:
    """Choose an address of the host as the source sees it, or one of the world."""
    if target == WORLD:
        return ipaddress.ip_address(FAR[version])
    if target != HOST:
        return None
    if source == HOST:
        return ipaddress.ip_address("127.0.0.1" if version == 4 else "::1")
    for each in known.endpoints if source != WORLD else ():
        record = known.network(each)
        gateway = record.gateway if version == 4 else record.gateway6
        if each.instance == source and record.bridged and gateway:
            return ipaddress.ip_address(gateway)
    gateways = {gateway for record in known.networks if record.bridged for _, _, gateway in record.ranges()}
    free = [
        each for each in known.own if each.version == version and not each.is_loopback and str(each) not in gateways
    ]
    return min((each for each in free if not each.is_link_local), default=None, key=int)


def _meeting(own: list[Endpoint], theirs: list[Endpoint], known: path.Map, version: int) -> path.Address | None:
    """Choose the address by which an instance is reached: on a network of both, as names are answered too."""
    shared = {each.network for each in own}
    ordered = sorted(theirs, key=lambda each: (each.network not in shared, not known.network(each).bridged))
    for each in ordered:
        if text := each.address if version == 4 else each.address6:
            return ipaddress.ip_address(text)
    return None


def _way_in(known: path.Map, address: path.Address) -> str:
    far = ipaddress.ip_address(FAR[address.version])
    return known.way(far) or "outside"


def _walls(known: path.Map, found: Way, source: str, version: int) -> list[str]:
    """Name chains of the host's own that drop what they don't know, and don't know the bridges on the way."""
    if not (found.passes and found.forwarded):
        return []
    met = [known.network(each) for each in known.endpoints if each.instance == source or each.name == found.reaches]
    return [
        f"{wall.chain} drops by default what is forwarded, and has the last word" for wall, _ in walls(met, version)
    ]


def _doors(theirs: list[Endpoint], packet: path.Packet, found: Way) -> list[str]:
    """Say where a port is published that was asked for directly."""
    if found.passes:
        return []
    ports = [port for each in theirs for port in each.ports if port.protocol == packet.protocol]
    return [
        *(f"it is published: ask {_at(port)} of the host" for port in ports if port.container_port == packet.port),
        *(
            f"port {port.host_port} of the host leads to its port {port.container_port}: ask {_at(port)} of the host"
            for port in ports
            if port.host_port == packet.port != port.container_port
        ),
    ]


def _at(port: Port) -> str:
    address = f"[{port.host_address}]" if ":" in port.host_address else port.host_address
    return f"{address}:{port.host_port}"
