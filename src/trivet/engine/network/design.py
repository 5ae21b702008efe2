"""From a request to the record of a network: names, subnet, gateway, interface. Looks at the host, changes nothing."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from trivet.base.error import Conflict, InvalidArgument
from trivet.client.schema import NetworkRequest
from trivet.engine.network import names
from trivet.engine.network.ipam import DEFAULT_RANGES, USER_RANGES, free_subnet
from trivet.engine.network.model import BRIDGE, DEFAULT_ENGINE, InvalidNetwork, NetworkRecord, short
from trivet.kernel import rtnetlink

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_LONGEST_PREFIX = 29
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
        mtu=_mtu(request.mtu),
        labels=request.labels,
    )
    if request.driver != BRIDGE:
        return record
    subnet = _subnet(request, networks)
    return msgspec.structs.replace(
        record,
        chosen=not request.subnet,
        subnet=str(subnet),
        gateway=str(_gateway(request, subnet)),
        interface=_interface(engine_id, request.name, identity),
    )


def rival(record: NetworkRecord) -> str:
    """Name another interface of the host that packets for the network's subnet may be sent to; "" if there is none."""
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


def _mtu(wanted: int) -> int:
    """Lower the usual MTU to that of the way out, so that nothing has to be fragmented there."""
    ways_out = {route.interface for route in rtnetlink.routes() if route.destination.prefixlen == 0}
    return min([wanted, *(link.mtu for link in rtnetlink.links() if link.index in ways_out and wanted == USUAL_MTU)])


def _subnet(request: NetworkRequest, networks: Sequence[NetworkRecord]) -> ipaddress.IPv4Network:
    used = _used(networks)
    if not request.subnet:
        return free_subnet(DEFAULT_RANGES if request.name == BRIDGE else USER_RANGES, used)
    try:
        subnet = ipaddress.IPv4Network(request.subnet)
    except ValueError as error:
        raise InvalidNetwork(request.name, f"cannot have subnet {request.subnet}: {error}") from error
    if subnet.prefixlen > _LONGEST_PREFIX:
        raise InvalidNetwork(request.name, f"cannot have subnet {subnet}: /{_LONGEST_PREFIX} is the smallest")
    for other in used:
        if other.prefixlen and other.overlaps(subnet):
            raise Conflict(f"subnet {subnet} of network {request.name} overlaps {other}, which this host uses")
    return subnet


def _gateway(request: NetworkRequest, subnet: ipaddress.IPv4Network) -> ipaddress.IPv4Address:
    try:
        gateway = ipaddress.IPv4Address(request.gateway or subnet.network_address + 1)
    except ValueError as error:
        raise InvalidNetwork(request.name, f"cannot have gateway {request.gateway}: {error}") from error
    if gateway not in subnet or gateway in (subnet.network_address, subnet.broadcast_address):
        raise InvalidNetwork(request.name, f"cannot have gateway {gateway}, it is no host address of {subnet}")
    return gateway


def _used(networks: Sequence[NetworkRecord]) -> list[ipaddress.IPv4Network]:
    """List what a new subnet must not overlap: routes of the host, networks of ours, resolvers."""
    routes = [route.destination for route in rtnetlink.routes()]
    own = [record.range for record in networks if record.subnet]
    resolvers = [ipaddress.ip_network(server) for server in names.resolvers()]
    return [network for network in (*routes, *own, *resolvers) if isinstance(network, ipaddress.IPv4Network)]


def _interface(engine_id: str, name: str, identity: str) -> str:
    """Name the bridge: engines live side by side, so only the default one has a name to remember."""
    if engine_id == DEFAULT_ENGINE and name == BRIDGE:
        return "trivet0"
    return f"trv-{short(engine_id, identity)[:6]}"
