"""What the kernel says happened: links, addresses and nftables tables of this network namespace.

    NETLINK_ROUTE       groups LINK, IPV4_IFADDR, IPV6_IFADDR: the messages that a request would have been answered with
    NETLINK_NETFILTER   group NFTABLES: a message for each object of a transaction

A socket whose reader is too slow loses messages (ENOBUFS): that is news too.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

import msgspec

from trivet.kernel.netlink import HEADER, find, number, text
from trivet.kernel.nftables import NETLINK_NETFILTER, NFGEN
from trivet.kernel.rtnetlink import DELLINK, IFADDR, IFF_UP, IFINFO, IFLA_IFNAME, IFLA_MASTER, NEWLINK

_GROUPS = 0x1 | 0x10 | 0x100
_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES = 270, 1, 7
_DELADDR = 21
_SUBSYSTEM = 10
_TABLE = 1  # the attribute that names the table, in messages about tables, chains, rules and elements alike
_NEW_ELEMENT, _GONE_ELEMENT = 12, 14
_ROOM = 1 << 20
_GENERATION = 15


class News(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened to an interface or an nftables table (`element`: what is in its sets); `lost`: to what?"""

    interface: str = ""
    gone: bool = False
    up: bool = True
    master: int = 0
    table: str = ""
    element: bool = False
    lost: bool = False


class Listener:
    """Two sockets; `descriptors` become readable when there is news."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._routes = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._tables = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        for each in (self._routes, self._tables):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        self._routes.bind((0, _GROUPS))
        self._tables.bind((0, 0))
        self._tables.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._routes.close()
        self._tables.close()

    def descriptors(self) -> tuple[int, int]:
        """The descriptors to wait for."""
        return self._routes.fileno(), self._tables.fileno()

    def read(self) -> Iterator[News]:
        """Read what there is, without waiting."""
        for each, parse in ((self._routes, _route), (self._tables, _table)):
            try:
                while True:
                    yield from (news for message in _messages(each.recv(_ROOM)) if (news := parse(*message)))
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield News(lost=True)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, offset)
        if not HEADER.size <= length <= len(data) - offset:
            return
        yield kind, data[offset + HEADER.size : offset + length]
        offset += length + (-length % 4)


def _route(kind: int, payload: bytes) -> News | None:
    if kind in (NEWLINK, DELLINK):
        _, _, _, flags, _ = IFINFO.unpack_from(payload)
        name, master = find(payload, IFINFO.size, IFLA_IFNAME, IFLA_MASTER)
        up = bool(flags & IFF_UP)
        return News(interface=text(name), gone=kind == DELLINK, up=up, master=number(master) if master else 0)
    if kind == _DELADDR:
        with suppress(OSError):  # gone with its interface, of which there is other news
            return News(interface=socket.if_indextoname(IFADDR.unpack_from(payload)[4]), gone=True)
    return None


def _table(kind: int, payload: bytes) -> News | None:
    if kind >> 8 != _SUBSYSTEM or kind & 0xFF in (_GENERATION, _NEW_ELEMENT):
        return None
    (name,) = find(payload, NFGEN.size, _TABLE)
    return News(table=text(name), element=kind & 0xFF == _GONE_ELEMENT)
