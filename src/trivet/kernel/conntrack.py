"""Connection tracking: who is led where, and forgetting it (ctnetlink, NFNL_SUBSYS_CTNETLINK).

    entry       CTA_TUPLE_ORIG what was sent, CTA_TUPLE_REPLY what is expected back, CTA_PROTOINFO the state of TCP
    tuple       CTA_TUPLE_IP addresses, CTA_TUPLE_PROTO protocol number and ports

A translation is looked up once per connection and then remembered. For TCP the connection ends with its
program; a client of UDP would go on sending to an instance that is gone for as long as it sends.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator
from typing import NamedTuple

from trivet.kernel.netlink import ACK, DUMP, REQUEST, Request, Socket, attributes, nested
from trivet.kernel.nftables import NETLINK_NETFILTER, NFGEN

_SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY, _PROTOCOL = 1, 2, 4
_TUPLE_ADDRESSES, _TUPLE_PROTOCOL = 1, 2
_SOURCE_V4, _SOURCE_V6 = 1, 3
_PROTOCOL_NUMBER, _DESTINATION_PORT = 1, 3
_TCP, _TCP_STATE = 1, 1
_LAST_ACK = 6  # from here on both sides have said that they end


class Entry(NamedTuple):
    """A connection to a `port` that is led to `address`; `original` is its tuple, `state` that of TCP or 0."""

    protocol: int
    port: int
    address: bytes
    state: int
    original: bytes


def forget_datagrams(port: int, address: str) -> int:
    """Drop the entries of UDP sent to `port` of the host and led to `address`; how many there were.

    Reads all entries of the host (a microsecond each), so this is for rare events. A kernel without ctnetlink
    (EINVAL, after trying to load it) keeps its entries.
    """
    wanted = (socket.IPPROTO_UDP, port, ipaddress.ip_address(address).packed)
    found = [entry.original for entry in _all() if entry[:3] == wanted]
    head = NFGEN.pack(socket.AF_INET, 0, 0)
    with Socket(NETLINK_NETFILTER) as netlink:
        for entry in found:
            try:
                netlink.send(Request(_SUBSYSTEM << 8 | _DELETE, head + nested(_ORIGINAL, entry), REQUEST | ACK))
            except FileNotFoundError:
                continue  # timed out meanwhile
    return len(found)


def streams(port: int, addresses: set[str]) -> int:
    """Count the TCP connections made to `port` of the host and led to one of `addresses` that haven't ended."""
    wanted = {ipaddress.ip_address(address).packed for address in addresses}
    return sum(
        entry.protocol == socket.IPPROTO_TCP
        and entry.port == port
        and entry.address in wanted
        and 0 < entry.state < _LAST_ACK
        for entry in _all()
    )


def _all() -> list[Entry]:
    try:
        return list(_entries())
    except OSError as error:
        if error.errno == errno.EINVAL:
            return []
        raise


def _entries() -> Iterator[Entry]:
    request = Request(_SUBSYSTEM << 8 | _GET, NFGEN.pack(socket.AF_UNSPEC, 0, 0), REQUEST | DUMP)
    with Socket(NETLINK_NETFILTER) as netlink:
        for answer in netlink.dump(request):
            entry = attributes(answer[NFGEN.size :])
            protocol = attributes(attributes(entry[_ORIGINAL])[_TUPLE_PROTOCOL])
            led_to = attributes(attributes(entry[_REPLY])[_TUPLE_ADDRESSES])
            state = attributes(attributes(entry.get(_PROTOCOL, b"")).get(_TCP, b"")).get(_TCP_STATE, b"\0")
            yield Entry(
                protocol=protocol[_PROTOCOL_NUMBER][0],
                port=int.from_bytes(protocol.get(_DESTINATION_PORT, b""), "big"),
                address=led_to.get(_SOURCE_V4) or led_to.get(_SOURCE_V6, b""),
                state=state[0],
                original=entry[_ORIGINAL],
            )
