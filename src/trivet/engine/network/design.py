"""From a request to the record of a network: names, subnet, gateway, interface. Looks at the host, changes nothing."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from trivet.base.error import Conflict, InvalidArgument
from trivet.client.schema_network import NetworkRequest
from trivet.engine.network import names
from trivet.engine.network.ipam import DEFAULT_RANGES, USER_RANGES, Address, Subnet, free_subnet, local_range
from trivet.engine.network.model import (
    BINDING,
    BRIDGE,
    BRIDGE_NAME,
    DEFAULT_ENGINE,
    IPVLAN,
    IPVLAN_MODE,
    MACVLAN,
    MACVLAN_MODE,
    MTU,
    OPTIONS,
    PARENT,
    InvalidNetwork,
    NetworkRecord,
    short,
)
from trivet.kernel import rtnetlink

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_LONGEST_PREFIX = 29
_LONGEST_PREFIX6 = 125
_INTERFACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
_MACHINE = Path("/etc/machine-id")
CHOICES = {MACVLAN_MODE: ("bridge", "private", "vepa", "passthru"), IPVLAN_MODE: ("l2",)}
_LOCK = "/run/trivet-network.lock"
USUAL_MTU = 1500


def design(request: NetworkRequest, engine_id: str, networks: Sequence[NetworkRecord]) -> NetworkRecord:
    """Decide everything about a network. Raises `InvalidArgument`, `Conflict` for a used subnet, `Exhausted`."""
    if not _NAME.fullmatch(request.name):
        raise InvalidArgument(f"network name {request.name!r} is invalid: letters, digits, '_', '.', '-' are possible")
    if not 68 <= request.mtu <= 65535:
        raise InvalidNetwork(request.name, f"cannot have MTU {request.mtu}, 68 to 65535 is possible")
    identity = secrets.token_hex(32)
    record = NetworkRecord(
        id=identity,
        name=request.name,
        driver=request.driver,
        created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        internal=request.internal,
        mtu=request.mtu,
        labels=request.labels,
        options=_options(request),
    )
    if request.driver not in OPTIONS:
        return record
    stacked = request.driver in (MACVLAN, IPVLAN)
    parent = _parent(request, networks) if stacked else ""
    if not request.ipv4:
        _refuse_ipv4(request)
    subnet = _subnet(request, networks, elsewhere=stacked) if request.ipv4 else None
    subnet6 = _subnet6(request, engine_id, networks, elsewhere=stacked) if request.ipv6 or request.subnet6 else None
    if request.gateway6 and not subnet6:
        raise InvalidNetwork(request.name, f"cannot have gateway {request.gateway6} without IPv6")
    return msgspec.structs.replace(
        record,
        chosen=request.ipv4 and not request.subnet,
        subnet=str(subnet or ""),
        gateway=str(_gateway(request.name, request.gateway, subnet)) if subnet else "",
        subnet6=str(subnet6 or ""),
        gateway6=str(_gateway(request.name, request.gateway6, subnet6)) if subnet6 else "",
        ip_range=_ip_range(request, subnet) if subnet else "",
        interface=parent or request.options.get(BRIDGE_NAME) or interface(engine_id, request.name, identity),
        mtu=_mtu(request.mtu, parent),
    )


def sized(request: NetworkRequest) -> NetworkRequest:
    """Let the MTU that is an option, as Docker has it, be the network's. Raises `InvalidNetwork`."""
    text = request.options.get(MTU, "")
    if not text:
        return request
    if not text.isdecimal():
        raise InvalidNetwork(request.name, f"cannot have option {MTU}: {text!r} is no number")
    if request.mtu not in (USUAL_MTU, int(text)):
        raise InvalidNetwork(request.name, f"cannot have MTU {request.mtu} and, by option {MTU}, {text}")
    return msgspec.structs.replace(request, mtu=int(text))


def rival(record: NetworkRecord) -> str:
    """Name another interface of the host that packets for the IPv4 subnet may be sent to; "" if there is none."""
    if not record.subnet:
        return ""
    names_by_index = {link.index: link.name for link in rtnetlink.links()}
    for route in rtnetlink.routes():
        name = names_by_index.get(route.interface, "")
        if route.destination.prefixlen and route.destination.overlaps(record.range) and name != record.interface:
            return name or "another route"
    return ""


def moved(record: NetworkRecord, networks: Sequence[NetworkRecord]) -> NetworkRecord:
    """Choose another subnet for a network whose own was taken while it was not on the host. Raises `Exhausted`."""
    subnet = free_subnet(DEFAULT_RANGES if record.name == BRIDGE else USER_RANGES, _used(networks))
    return msgspec.structs.replace(record, subnet=str(subnet), gateway=str(subnet.network_address + 1))


@contextmanager
def alone() -> Iterator[None]:
    """Keep other engines of this host from choosing the same subnet until ours has its route."""
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _mtu(wanted: int, parent: str = "") -> int:
    """Lower the usual MTU to that of the way out, or of the parent, so that nothing has to be fragmented there."""
    ways_out = {route.interface for route in rtnetlink.routes() if route.destination.prefixlen == 0}
    passed = [link for link in rtnetlink.links() if (link.name == parent if parent else link.index in ways_out)]
    return min([wanted, *(link.mtu for link in passed if wanted == USUAL_MTU)])


def _parent(request: NetworkRequest, networks: Sequence[NetworkRecord]) -> str:
    """Choose the host's interface that a network is on top of; each carries one network, as in Docker."""
    parent = request.options.get(PARENT, "")
    if not parent:
        raise InvalidNetwork(request.name, f"needs an interface of the host to be on: -o {PARENT}=INTERFACE")
    for other in networks:
        if other.interface == parent:
            raise Conflict(f"interface {parent} is used by network {other.name} already")
    return parent


def _subnet(request: NetworkRequest, networks: Sequence[NetworkRecord], *, elsewhere: bool) -> ipaddress.IPv4Network:
    """Choose the subnet; one that is `elsewhere`, where the host is a neighbour too, may have routes here."""
    used = _used(networks)
    if not request.subnet:
        ranges = DEFAULT_RANGES if request.name == BRIDGE else USER_RANGES
        return ipaddress.IPv4Network(str(free_subnet(ranges, used)))
    try:
        subnet = ipaddress.IPv4Network(request.subnet)
    except ValueError as error:
        raise InvalidNetwork(request.name, f"cannot have subnet {request.subnet}: {error}") from error
    if subnet.prefixlen > _LONGEST_PREFIX:
        raise InvalidNetwork(request.name, f"cannot have subnet {subnet}: /{_LONGEST_PREFIX} is the smallest")
    _refuse_overlap(request.name, subnet, [record.range for record in networks if record.subnet] if elsewhere else used)
    return subnet


def _refuse_ipv4(request: NetworkRequest) -> None:
    """Refuse what only makes sense with IPv4, for a network without."""
    if not (request.ipv6 or request.subnet6):
        raise InvalidNetwork(request.name, "cannot be without IPv4 and IPv6: one of them must be enabled")
    for word, text in (("subnet", request.subnet), ("gateway", request.gateway), ("IP range", request.ip_range)):
        if text:
            raise InvalidNetwork(request.name, f"cannot have {word} {text} without IPv4")


def _subnet6(
    request: NetworkRequest, engine_id: str, networks: Sequence[NetworkRecord], *, elsewhere: bool
) -> ipaddress.IPv6Network:
    used = [] if elsewhere else [route.destination for route in rtnetlink.routes(socket.AF_INET6)]
    used += [ipaddress.ip_network(record.subnet6) for record in networks if record.subnet6]
    if not request.subnet6:
        own = local_range(_MACHINE.read_text() if _MACHINE.exists() else os.uname().nodename, engine_id)
        return ipaddress.IPv6Network(str(free_subnet(((own, 64),), used)))
    try:
        subnet = ipaddress.IPv6Network(request.subnet6)
    except ValueError as error:
        raise InvalidNetwork(request.name, f"cannot have subnet {request.subnet6}: {error}") from error
    if subnet.prefixlen > _LONGEST_PREFIX6:
        raise InvalidNetwork(request.name, f"cannot have subnet {subnet}: /{_LONGEST_PREFIX6} is the smallest")
    _refuse_overlap(request.name, subnet, used)
    return subnet


def _refuse_overlap(name: str, subnet: Subnet, used: Sequence[Subnet]) -> None:
    for other in used:
        if other.prefixlen and other.version == subnet.version and other.overlaps(subnet):
            raise Conflict(f"subnet {subnet} of network {name} overlaps {other}, which this host uses")


def _gateway(name: str, wanted: str, subnet: Subnet) -> Address:
    try:
        gateway = type(subnet.network_address)(wanted or int(subnet.network_address) + 1)
    except ValueError as error:
        raise InvalidNetwork(name, f"cannot have gateway {wanted}: {error}") from error
    last = subnet.broadcast_address if subnet.version == 4 else subnet.network_address
    if gateway not in subnet or gateway in (subnet.network_address, last):
        raise InvalidNetwork(name, f"cannot have gateway {gateway}, it is no host address of {subnet}")
    return gateway


def _ip_range(request: NetworkRequest, subnet: ipaddress.IPv4Network) -> str:
    if not request.ip_range:
        return ""
    try:
        wanted = ipaddress.IPv4Network(request.ip_range)
    except ValueError as error:
        raise InvalidNetwork(request.name, f"cannot have IP range {request.ip_range}: {error}") from error
    if not wanted.subnet_of(subnet):
        raise InvalidNetwork(request.name, f"cannot have IP range {wanted}, it is not in {subnet}")
    return str(wanted)


def _options(request: NetworkRequest) -> dict[str, str]:
    """Check the options; what isn't known would be without effect."""
    known = OPTIONS.get(request.driver, ())
    for key, value in request.options.items():
        if key not in known:
            words = f"known are {', '.join(known)}" if known else f"driver {request.driver} has none"
            raise InvalidNetwork(request.name, f"has no option {key}, {words}")
        if key in CHOICES and value not in CHOICES[key]:
            raise InvalidNetwork(
                request.name, f"cannot have option {key}: {value!r} is not {' or '.join(CHOICES[key])}"
            )
        if key == PARENT and not _INTERFACE.fullmatch(value):
            raise InvalidNetwork(request.name, f"cannot have option {key}: {value!r} is no name of an interface")
        if key == BRIDGE_NAME and not _INTERFACE.fullmatch(value):
            raise InvalidNetwork(request.name, f"cannot have option {key}: {value!r} is no name of an interface")
        if key == BINDING and value and not _is_ipv4(value):
            raise InvalidNetwork(request.name, f"cannot have option {key}: {value!r} is not an IPv4 address")
    name = request.options.get(BRIDGE_NAME, "")
    if name and rtnetlink.link(name):
        raise Conflict(f"interface {name} of network {request.name} exists already")
    return request.options


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _used(networks: Sequence[NetworkRecord]) -> list[ipaddress.IPv4Network]:
    """List what a new subnet must not overlap: routes of the host, networks of ours, resolvers."""
    routes = [route.destination for route in rtnetlink.routes()]
    own = [record.range for record in networks if record.subnet]
    resolvers = [ipaddress.ip_network(server) for server in names.resolvers()]
    return [network for network in (*routes, *own, *resolvers) if isinstance(network, ipaddress.IPv4Network)]


def interface(engine_id: str, name: str, identity: str) -> str:
    """Name the bridge: engines live side by side, so only the default one has a name to remember."""
    if engine_id == DEFAULT_ENGINE and name == BRIDGE:
        return "trivet0"
    return f"trv-{short(engine_id, identity)[:6]}"
