"""Connection tracking: forgetting where datagrams went (ctnetlink, NFNL_SUBSYS_CTNETLINK).

    entry       CTA_TUPLE_ORIG what was sent, CTA_TUPLE_REPLY what is expected back
    tuple       CTA_TUPLE_IP addresses, CTA_TUPLE_PROTO protocol number and ports

A translation is looked up once per connection and then remembered. For TCP the connection ends with its
program; a client of UDP would go on sending to an instance that is gone for as long as it sends.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator

from trivet.kernel.netlink import ACK, DUMP, REQUEST, Request, Socket, attributes, nested
from trivet.kernel.nftables import NETLINK_NETFILTER, NFGEN

_SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY = 1, 2
_TUPLE_ADDRESSES, _TUPLE_PROTOCOL = 1, 2
_SOURCE_V4 = 1
_PROTOCOL_NUMBER, _DESTINATION_PORT = 1, 3


def forget_datagrams(port: int, address: str) -> int:
    """Drop the entries of UDP sent to `port` of the host and led to `address`; how many there were.

    Reads all entries of the host (a microsecond each), so this is for rare events. A kernel without ctnetlink
    (EINVAL, after trying to load it) keeps its entries.
    """
    try:
        found = list(_entries(port, ipaddress.IPv4Address(address).packed))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return 0
        raise
    head = NFGEN.pack(socket.AF_INET, 0, 0)
    with Socket(NETLINK_NETFILTER) as netlink:
        for entry in found:
            try:
                netlink.send(Request(_SUBSYSTEM << 8 | _DELETE, head + nested(_ORIGINAL, entry), REQUEST | ACK))
            except FileNotFoundError:
                continue  # timed out meanwhile
    return len(found)


def _entries(port: int, address: bytes) -> Iterator[bytes]:
    """Yield the original tuples of the entries that match."""
    request = Request(_SUBSYSTEM << 8 | _GET, NFGEN.pack(socket.AF_INET, 0, 0), REQUEST | DUMP)
    with Socket(NETLINK_NETFILTER) as netlink:
        for answer in netlink.dump(request):
            entry = attributes(answer[NFGEN.size :])
            protocol = attributes(attributes(entry[_ORIGINAL])[_TUPLE_PROTOCOL])
            led_to = attributes(attributes(entry[_REPLY])[_TUPLE_ADDRESSES]).get(_SOURCE_V4)
            asked = int.from_bytes(protocol.get(_DESTINATION_PORT, b""), "big")
            if protocol[_PROTOCOL_NUMBER][0] == socket.IPPROTO_UDP and (asked, led_to) == (port, address):
                yield entry[_ORIGINAL]
