"""Ports under another number: a small nftables table made by netlink alone, without connection tracking.

    nfgenmsg, then attributes: table name, chain (name, hook), rule (table, chain, expressions)
    expression   NFTA_EXPR_NAME, NFTA_EXPR_DATA: load what a header says, compare it, or write to the header

A packet to `port` has its destination changed on its way in, an answer its source on its way out; the kernel
corrects the checksums. As nothing is remembered, no packet is ever taken for another connection's.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from trivet.kernel.netlink import ACK, CREATE, EXCLUSIVE, REQUEST, Request, Socket, attribute, nested

_NETFILTER, _SUBSYSTEM = 12, 10
_BEGIN, _END = 16, 17
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_IPV4, _IPV6 = 2, 10  # NFPROTO_IPV4, NFPROTO_IPV6
_FAMILIES = {4: _IPV4, 6: _IPV6}
_PREROUTING, _OUTPUT, _RAW = 0, 3, -300
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2  # payload bases
# Offsets in the header of each version: source, destination, protocol of what follows.
_OFFSETS = {_IPV4: (12, 16, 9), _IPV6: (8, 24, 6)}
_REGISTER = 1
PROTOCOLS = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}
_CHECKSUM = {"udp": 6, "tcp": 16}  # where it is


class Redirection(NamedTuple):
    """Who sends to `port` at `address` is led to `actual`. `arriving`: from other machines, else from this one."""

    address: str
    protocol: str
    port: int
    actual: int
    arriving: bool = False


def load(table: str, redirections: list[Redirection]) -> None:
    """Load a table in place of what has its name, in the caller's network namespace; one of each version needed."""
    for version in versions(redirections):
        _load(_FAMILIES[version], table, [each for each in redirections if _version(each) == version])


def versions(redirections: Iterable[Redirection]) -> frozenset[int]:
    """List the IP versions that have a table."""
    return frozenset(map(_version, redirections))


def remove(table: str, of: Iterable[int] = (4, 6)) -> None:
    """Remove the tables of some IP versions; missing is fine, but takes milliseconds."""
    for version in of:
        _remove(_FAMILIES[version], table)


def _version(each: Redirection) -> int:
    return 6 if ":" in each.address else 4


def _load(family: int, table: str, redirections: list[Redirection]) -> None:
    made = [_message(_NEWTABLE, attribute(1, table), CREATE | EXCLUSIVE), *_content(family, table, redirections)]
    try:
        _send(family, table, made)
    except FileExistsError:
        _send(family, table, [_message(_DELTABLE, attribute(1, table)), *made])


def _remove(family: int, table: str) -> None:
    try:
        _send(family, table, [_message(_DELTABLE, attribute(1, table))])
    except FileNotFoundError:
        pass


def _content(family: int, table: str, redirections: list[Redirection]) -> list[tuple[int, bytes, int]]:
    chains = {"arriving": _PREROUTING, "leaving": _OUTPUT}
    found = [
        _message(
            _NEWCHAIN,
            attribute(1, table)
            + attribute(3, name)
            + nested(4, attribute(1, struct.pack(">I", hook)), attribute(2, struct.pack(">i", _RAW)))
            + attribute(7, "filter"),
            CREATE,
        )
        for name, hook in chains.items()
    ]
    for each in redirections:
        way = "arriving" if each.arriving else "leaving"
        found.append(_rule(family, table, way, each, 2, each.port, each.actual))
        found.append(_rule(family, table, "leaving", each, 0, each.actual, each.port))
    return found


def _rule(
    family: int, table: str, chain: str, each: Redirection, offset: int, old: int, new: int
) -> tuple[int, bytes, int]:
    """Change a port (at `offset` of the transport header) of packets whose address on that side is the one."""
    source, destination, protocol = _OFFSETS[family]
    side, address = destination if offset else source, ipaddress.ip_address(each.address).packed
    expressions = (
        *_equal(_NETWORK, side, address),
        *_equal(_NETWORK, protocol, bytes([PROTOCOLS[each.protocol]])),
        *_equal(_TRANSPORT, offset, struct.pack(">H", old)),
        _expression("immediate", (1, _REGISTER), (2, nested(2, attribute(1, struct.pack(">H", new))))),
        _expression(
            "payload", (2, _TRANSPORT), (3, offset), (4, 2), (5, _REGISTER), (6, 1), (7, _CHECKSUM[each.protocol])
        ),
    )
    body = attribute(1, table) + attribute(2, chain) + nested(4, *expressions)
    return _message(_NEWRULE, body, CREATE | 0x800)


def _equal(base: int, offset: int, value: bytes) -> tuple[bytes, bytes]:
    """Go on only if some bytes of a header are these."""
    return (
        _expression("payload", (1, _REGISTER), (2, base), (3, offset), (4, len(value))),
        _expression("cmp", (1, _REGISTER), (2, 0), (3, nested(3, attribute(1, value)))),
    )


def _expression(name: str, *fields: tuple[int, int | bytes]) -> bytes:
    """Build an expression of u32 fields; bytes are attributes that were built already."""
    data = [value if isinstance(value, bytes) else attribute(kind, struct.pack(">I", value)) for kind, value in fields]
    return nested(1, attribute(1, name), nested(2, *data))


def _message(kind: int, body: bytes, flags: int = 0) -> tuple[int, bytes, int]:
    return kind, body, flags


def _send(family: int, table: str, messages: list[tuple[int, bytes, int]]) -> None:
    frame = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
    what = f"nftables table {table}"
    with Socket(_NETFILTER) as netlink:
        netlink.send(
            Request(_BEGIN, frame, REQUEST, what),
            *(
                Request(_SUBSYSTEM << 8 | kind, _head(family) + body, REQUEST | ACK | flags, what)
                for kind, body, flags in messages
            ),
            Request(_END, frame, REQUEST, what),
        )


def _head(family: int) -> bytes:
    return struct.pack(">BBH", family, 0, 0)


def present(table: str) -> bool:
    """Tell whether a table is loaded in the caller's network namespace."""
    request = Request(_SUBSYSTEM << 8 | 1, _head(_IPV4) + attribute(1, table), REQUEST, table)
    try:
        with Socket(_NETFILTER) as netlink:
            return any(True for _ in netlink.dump(request))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
