"""Who is where: forwarding entries of a tunnel (bridge(8), `fdb`) and neighbours (ip-neighbour(8)).

ndmsg       u8 family, u8 pad, u16 pad, i32 index, u16 state, u8 flags, u8 type
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable

import msgspec

from trivet.kernel.netlink import ACK, CREATE, DUMP, REQUEST, Request, Socket, attribute, attributes

NDMSG = struct.Struct("=BxHiHBB")
_NEW, _DELETE, _GET = 28, 29, 30
_DESTINATION, _HARDWARE = 1, 2
_REPLACE = 0x100
_PERMANENT, _SELF = 0x80, 0x02
_AF_BRIDGE = 7
_PORTION = 200  # messages of one system call; their acknowledgements must fit into the socket's buffer
NOBODY = bytes(6)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Entry(msgspec.Struct, frozen=True):
    """What a tunnel knows: frames for `mac` go to host `address`, or with `neighbour` address is at `mac`."""

    mac: str
    address: Address
    neighbour: bool = False


def entries(name: str) -> set[Entry]:
    """List what a tunnel was told."""
    index = socket.if_nametoindex(name)
    found = set()
    with Socket(socket.NETLINK_ROUTE) as netlink:
        for family in (_AF_BRIDGE, socket.AF_INET, socket.AF_INET6):
            request = Request(_GET, NDMSG.pack(family, 0, 0, 0, 0, 0), REQUEST | DUMP, name)
            for payload in netlink.dump(request):
                entry = _entry(payload, index)
                if entry:
                    found.add(entry)
    return found


def change(name: str, add: Iterable[Entry], remove: Iterable[Entry]) -> None:
    """Tell a tunnel more and have it forget; an entry that is gone is fine. The first other refusal is an `OSError`."""
    index = socket.if_nametoindex(name)
    gone = [Request(_DELETE, _message(index, entry), REQUEST | ACK, name) for entry in remove]
    new = [Request(_NEW, _message(index, entry), REQUEST | ACK | CREATE | _REPLACE, name) for entry in add]
    with Socket(socket.NETLINK_ROUTE) as netlink:
        for requests in (gone, new):
            for at in range(0, len(requests), _PORTION):
                try:
                    netlink.send(*requests[at : at + _PORTION])
                except OSError as error:
                    if requests is new or error.errno != errno.ENOENT:
                        raise


def _message(index: int, entry: Entry) -> bytes:
    family = socket.AF_INET if entry.address.version == 4 else socket.AF_INET6
    flags = 0 if entry.neighbour else _SELF
    header = NDMSG.pack(family if entry.neighbour else _AF_BRIDGE, 0, index, _PERMANENT, flags, 0)
    mac = bytes.fromhex(entry.mac.replace(":", ""))
    return header + attribute(_DESTINATION, entry.address.packed) + attribute(_HARDWARE, mac)


def _entry(payload: bytes, index: int) -> Entry | None:
    family, _, where, state, _, _ = NDMSG.unpack_from(payload)
    values = attributes(payload[NDMSG.size :])
    address, mac = values.get(_DESTINATION, b""), values.get(_HARDWARE, b"")
    if where != index or not state & _PERMANENT or len(address) not in (4, 16) or len(mac) != 6 or mac == NOBODY:
        return None
    packed = ipaddress.ip_address(address)
    return Entry(mac.hex(":"), packed, neighbour=family != _AF_BRIDGE)
