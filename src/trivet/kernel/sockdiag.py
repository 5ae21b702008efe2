"""TCP sockets that nobody has any more (sock_diag(7), linux/inet_diag.h).

    inet_diag_req_v2    family, protocol, extensions, states; inet_diag_sockid (48 bytes)
    inet_diag_msg       family, state, timer, retransmissions; inet_diag_sockid; expires, queues, user, inode

A connection outlives the program that made it until the other side has all of it, and holds its network namespace
for that time: minutes when the other side is silent, for ever when it reads nothing. No process, descriptor or mount
tells of it.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from pathlib import Path

from trivet.kernel.netlink import ACK, DUMP, REQUEST, Request, Socket

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21
_ID = slice(4, 52)
_INODE = struct.Struct("=I")
_INODE_AT = 68
_HEADER = struct.Struct("=BBxxI")
_LISTENING = 1 << 10
_FAMILIES = ((socket.AF_INET, "sockstat", "TCP:"), (socket.AF_INET6, "sockstat6", "TCP6:"))
# Established to closing, but for those that only wait for their number to be forgotten: they hold nothing.
_STATES = sum(1 << state for state in (1, 2, 4, 5, 8, 9, 11))


def end_orphans() -> int:
    """Reset the connections in the caller's network namespace that no program has; how many there were.

    Raises `OSError` on a kernel that can't (INET_DIAG_DESTROY).
    """
    ended = 0
    for family, file, word in _FAMILIES:
        if not (used := _used(file, word)):
            continue
        with Socket(_NETLINK_SOCK_DIAG) as netlink:
            # Those who listen are in a small table of their own; all others in one of the whole host (milliseconds).
            if used <= len(_list(netlink, family, _LISTENING)):
                continue
            for answer in _list(netlink, family, _STATES):
                if not _INODE.unpack_from(answer, _INODE_AT)[0]:
                    with suppress(FileNotFoundError):  # it ended meanwhile
                        netlink.send(Request(_DESTROY, _head(family, _STATES) + answer[_ID], REQUEST | ACK))
                        ended += 1
    return ended


def _used(file: str, word: str) -> int:
    """Count the TCP sockets of the caller's namespace."""
    try:
        lines = Path("/proc/thread-self/net", file).read_text().splitlines()
    except FileNotFoundError:  # no IPv6
        return 0
    return next((int(line.split()[2]) for line in lines if line.startswith(word)), 0)


def _list(netlink: Socket, family: int, states: int) -> list[bytes]:
    return list(netlink.dump(Request(_BY_FAMILY, _head(family, states) + bytes(48), REQUEST | DUMP)))


def _head(family: int, states: int) -> bytes:
    return _HEADER.pack(family, socket.IPPROTO_TCP, states)
