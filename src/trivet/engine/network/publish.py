"""Host ports: which are free, and whose they are.

A published port is an element of an nftables map, not a listening socket: nothing has to run for it, so
it works on while the engine is down. The price is that the kernel knows no owner of the port. We check
sockets, our own records and other engines' maps when a port is published; a host program that binds the
same port later gets no connections from outside, as translation comes before sockets (`check` says so).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from trivet.base.error import Denied, Exhausted, InvalidArgument
from trivet.client.schema_network import Port, PortRequest
from trivet.engine.network.model import Endpoint, PortTaken
from trivet.engine.network.ruleset import ANY, ANY6, map_names
from trivet.kernel import nftables

_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_ATTEMPTS = 200
TABLE_PREFIX = "trivet"


def choose(
    requests: Sequence[PortRequest],
    endpoint: Endpoint,
    endpoints: Iterable[Endpoint],
    table: str,
    held: Collection[tuple[str, int]] = (),
) -> list[Port]:
    """Settle every port wanted for `endpoint`, free ones for 0. Raises `PortTaken` naming the owner; changes nothing.

    Of what is `held` (protocol, port) our own relay may have a socket.

    A port without an address is published on all of the host's: IPv4, and IPv6 if the endpoint has that.
    """
    taken = [(port, f"instance {endpoint.name}") for endpoint in endpoints for port in endpoint.ports]
    taken += _of_other_engines(table)
    chosen: list[Port] = []
    for request in requests:
        _validate(request)
        for port in _settle(request, _addresses(request, endpoint), taken, held):
            taken.append((port, "the same instance"))
            chosen.append(port)
    return chosen


def listener(port: Port) -> str:
    """Name the host program that has a socket on a port; "" when there is none."""
    try:
        _probe(port.protocol, port.host_address, port.host_port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _owner(port.protocol, port.host_port)
    return ""


def _addresses(request: PortRequest, endpoint: Endpoint) -> tuple[str, ...]:
    if not request.host_address:
        return (ANY, ANY6) if endpoint.address6 else (ANY,)
    return (request.host_address,)


def _settle(
    request: PortRequest,
    addresses: Sequence[str],
    taken: list[tuple[Port, str]],
    held: Collection[tuple[str, int]],
) -> list[Port]:
    """Settle one port at each of some addresses, with the same number everywhere."""
    last = max(request.host_port, request.last)
    for wanted in range(request.host_port, last + 1) if request.host_port else [0] * _ATTEMPTS:
        number = wanted
        ports: list[Port] = []
        try:
            for address in addresses:
                if (request.protocol, number) not in held:
                    number = _bind(request, address, number)
                port = Port(
                    container_port=request.container_port,
                    protocol=request.protocol,
                    host_address=address,
                    host_port=number,
                )
                if owner := next((owner for other, owner in taken if _overlap(port, other)), ""):
                    raise PortTaken(address, number, request.protocol, owner)
                ports.append(port)
            return ports
        except PortTaken:
            if request.host_port and wanted == last:
                raise
    raise Exhausted(f"no free host port was found for {request.container_port}/{request.protocol}")


def _validate(request: PortRequest) -> None:
    if (
        not 1 <= request.container_port <= 65535
        or not 0 <= request.host_port <= max(request.host_port, request.last) <= 65535
    ):
        raise InvalidArgument(
            f"port {request.host_port}:{request.container_port} is out of range, 1 to 65535 is possible"
        )
    try:
        ipaddress.ip_address(request.host_address or ANY)
    except ValueError as error:
        raise InvalidArgument(f"cannot publish on {request.host_address}: it is not an IP address") from error


def _overlap(one: Port, other: Port) -> bool:
    same = (one.protocol, one.host_port) == (other.protocol, other.host_port)
    pair = (one.host_address, other.host_address)
    family = (":" in pair[0]) == (":" in pair[1])
    return same and family and (pair[0] == pair[1] or ANY in pair or ANY6 in pair)


def _bind(request: PortRequest, address: str, port: int) -> int:
    """Bind the port for a moment; what the kernel refuses is somebody's."""
    protocol = request.protocol
    try:
        return _probe(protocol, address, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(address, port, protocol, _owner(protocol, port)) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidArgument(f"cannot publish on {address}: it is not an address of this host") from error
        if error.errno == errno.EACCES:
            raise Denied(f"cannot publish port {port}/{protocol}: permission denied") from error
        raise


def _probe(protocol: str, address: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, _TYPES[protocol]) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":  # connections that are only waiting for their end don't count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address or ANY, port))
        return int(probe.getsockname()[1])


def _of_other_engines(table: str) -> list[tuple[Port, str]]:
    others = [name for name in nftables.tables() if name.startswith(TABLE_PREFIX) and name != table]
    found = []
    for other in others:
        for name, protocol, version in map_names():
            keys = nftables.keys(other, name)
            found += [(_port(protocol, version, key), "another trivet engine") for key in keys]
    return found


def _port(protocol: str, version: int, key: bytes) -> Port:
    size = 4 if version == 4 else 16
    unbound = ANY if version == 4 else ANY6
    address = str(ipaddress.ip_address(key[:size])) if len(key) > 2 else unbound
    number = int.from_bytes(key[size : size + 2] if len(key) > 2 else key, "big")
    return Port(container_port=0, protocol=protocol, host_address=address, host_port=number)


def _owner(protocol: str, port: int) -> str:
    """Name the program behind a socket, as far as /proc tells."""
    inodes = set()
    for table in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
        rows = Path(table).read_text().splitlines()[1:] if Path(table).exists() else []
        words = [row.split() for row in rows]
        inodes |= {row[9] for row in words if int(row[1].rpartition(":")[2], 16) == port}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in wanted for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return "another program"
