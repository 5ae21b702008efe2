"""What rules log to a group: the heads of packets, with the rule's prefix (nfnetlink_log, NFNL_SUBSYS_ULOG).

    config      NFULA_CFG_CMD u8 command, NFULA_CFG_MODE u32 bytes to copy, u8 mode; the group is the message's resource
    packet      NFULA_PAYLOAD from the IP header on, NFULA_PREFIX

Packets are only copied here; who is slow loses some (ENOBUFS).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

import msgspec

from trivet.kernel.netlink import ACK, HEADER, REQUEST, attribute, attributes, text
from trivet.kernel.nftables import NETLINK_NETFILTER, NFGEN

_SUBSYSTEM = 4
_PACKET, _CONFIG = 0, 1
_COMMAND, _MODE = 1, 2
_BIND, _COPY = 1, 2
_PAYLOAD, _PREFIX = 9, 10
_ROOM = 1 << 18
_SIZE = 128
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp", 58: "icmp6"}


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """A packet that a rule logged; `port` is the destination's, 0 where there is none."""

    prefix: str
    source: str
    target: str
    protocol: str
    port: int


class Log:
    """A group's reader; `descriptor` becomes readable when something was logged."""

    def __init__(self, group: int) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._configure(group, attribute(_COMMAND, bytes([_BIND])))
            self._configure(group, attribute(_MODE, struct.pack(">IBx", _SIZE, _COPY)))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def descriptor(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def read(self) -> Iterator[Logged]:
        """Read what there is, without waiting."""
        while True:
            try:
                data = self._socket.recv(_ROOM)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            while len(data) >= HEADER.size:
                length, kind, _, _, _ = HEADER.unpack_from(data)
                if not HEADER.size <= length <= len(data):
                    break
                if kind == _SUBSYSTEM << 8 | _PACKET and (found := _parse(data[HEADER.size + NFGEN.size : length])):
                    yield found
                data = data[length + (-length % 4) :]

    def _configure(self, group: int, payload: bytes) -> None:
        """Send a request and wait for its answer. EBUSY: somebody else reads this group."""
        body = NFGEN.pack(socket.AF_UNSPEC, 0, group) + payload
        head = HEADER.pack(HEADER.size + len(body), _SUBSYSTEM << 8 | _CONFIG, REQUEST | ACK, 1, 0)
        self._socket.setblocking(True)
        self._socket.settimeout(5)
        try:
            self._socket.send(head + body)
            code = -struct.unpack_from("=i", self._socket.recv(_ROOM), HEADER.size)[0]
        finally:
            self._socket.setblocking(False)
        if code:
            raise OSError(code, f"cannot read log group {group}")


def _parse(data: bytes) -> Logged | None:
    found = attributes(data)
    packet = found.get(_PAYLOAD, b"")
    if len(packet) < 20:
        return None
    if packet[0] >> 4 == 4:
        number, start = packet[9], (packet[0] & 15) * 4
        ends = [ipaddress.IPv4Address(packet[at : at + 4]) for at in (12, 16)]
    elif len(packet) >= 40:
        number, start = packet[6], 40
        ends = [ipaddress.IPv6Address(packet[at : at + 16]) for at in (8, 24)]  # type: ignore[misc]
    else:
        return None
    ported = number in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) and len(packet) >= start + 4
    return Logged(
        prefix=text(found.get(_PREFIX, b"")),
        source=str(ends[0]),
        target=str(ends[1]),
        protocol=_PROTOCOLS.get(number, str(number)),
        port=int.from_bytes(packet[start + 2 : start + 4], "big") if ported else 0,
    )
