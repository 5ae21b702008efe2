"""Ports under another number: a small nftables table made by netlink alone, without connection tracking.

    nfgenmsg, then attributes: table name, chain (name, hook), rule (table, chain, expressions)
    expression   NFTA_EXPR_NAME, NFTA_EXPR_DATA: load what a header says, compare it, or write to the header

A packet to `port` has its destination changed on its way in, an answer its source on its way out; the kernel
corrects the checksums. As nothing is remembered, no packet is ever taken for another connection's.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from trivet.kernel.netlink import ACK, CREATE, EXCLUSIVE, REQUEST, Request, Socket, attribute, nested

_NETFILTER, _SUBSYSTEM = 12, 10
_BEGIN, _END = 16, 17
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_HEAD = struct.pack(">BBH", 2, 0, 0)  # NFPROTO_IPV4
_PREROUTING, _OUTPUT, _RAW = 0, 3, -300
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2  # payload bases
_SOURCE, _DESTINATION, _PROTOCOL = 12, 16, 9  # offsets in an IPv4 header
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
    """Load a table in place of what has its name, in the caller's network namespace."""
    made = [_message(_NEWTABLE, attribute(1, table), CREATE | EXCLUSIVE), *_content(table, redirections)]
    try:
        _send(table, made)
    except FileExistsError:
        _send(table, [_message(_DELTABLE, attribute(1, table)), *made])


def remove(table: str) -> None:
    """Remove a table; missing is fine."""
    try:
        _send(table, [_message(_DELTABLE, attribute(1, table))])
    except FileNotFoundError:
        pass


def _content(table: str, redirections: list[Redirection]) -> list[tuple[int, bytes, int]]:
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
        found.append(_rule(table, way, each, _DESTINATION, 2, each.port, each.actual))
        found.append(_rule(table, "leaving", each, _SOURCE, 0, each.actual, each.port))
    return found


def _rule(
    table: str, chain: str, each: Redirection, side: int, offset: int, old: int, new: int
) -> tuple[int, bytes, int]:
    """Change a port (at `offset` of the transport header) of packets whose address on that side is the one."""
    expressions = (
        *_equal(_NETWORK, side, socket.inet_aton(each.address)),
        *_equal(_NETWORK, _PROTOCOL, bytes([PROTOCOLS[each.protocol]])),
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


def _send(table: str, messages: list[tuple[int, bytes, int]]) -> None:
    frame = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
    what = f"nftables table {table}"
    with Socket(_NETFILTER) as netlink:
        netlink.send(
            Request(_BEGIN, frame, REQUEST, what),
            *(
                Request(_SUBSYSTEM << 8 | kind, _HEAD + body, REQUEST | ACK | flags, what)
                for kind, body, flags in messages
            ),
            Request(_END, frame, REQUEST, what),
        )


def present(table: str) -> bool:
    """Tell whether a table is loaded in the caller's network namespace."""
    request = Request(_SUBSYSTEM << 8 | 1, _HEAD + attribute(1, table), REQUEST, table)
    try:
        with Socket(_NETFILTER) as netlink:
            return any(True for _ in netlink.dump(request))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
