"""Where instances ask: a UDP and a TCP socket at 127.0.0.11 in their own network namespace, or at a gateway.

Both have ports of the kernel's choice, so that a program of the instance may have 53 to itself; an nftables table of
the namespace leads what is sent to 53 there. The sockets keep the namespace alive: close a door in time.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import NamedTuple

from trivet.kernel import nftport
from trivet.kernel.namespace import inside

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "trivet-dns"
Reply = Callable[[bytes], None]
_IP_FREEBIND = 15
_WAITING = 16  # connections the kernel keeps for us
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


class Door(NamedTuple):
    """Open sockets. `instance` asks there, "" where a network's machines do; `file` is the namespace, -1 the host's."""

    instance: str
    network: str
    address: str
    file: int
    identity: tuple[int, int]
    datagrams: socket.socket
    connections: socket.socket

    @property
    def key(self) -> str:
        """The key of who may ask here: an instance, or a network with its machines."""
        return self.instance or self.network

    def redirections(self) -> list[nftport.Redirection]:
        """Say what leads to it."""
        arriving = self.file < 0
        return [
            nftport.Redirection(self.address, protocol, PORT, item.getsockname()[1], arriving)
            for protocol, item in (("udp", self.datagrams), ("tcp", self.connections))
        ]

    def close(self) -> None:
        """Close the sockets and let the namespace go."""
        self.datagrams.close()
        self.connections.close()
        if self.file >= 0:
            os.close(self.file)


def identify(path: str) -> tuple[int, int]:
    """Tell which namespace is at a path now; (0, 0) for none, or a file where none is mounted yet."""
    try:
        status = Path(path).stat()
        if status.st_dev == Path(path).parent.stat().st_dev:
            return 0, 0
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def open_inside(instance: str, path: str) -> Door:
    """Open the door of an instance. Raises OSError, when its namespace is gone for example."""
    with ExitStack() as undo:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, file)
        status = os.fstat(file)
        with inside(file):
            _raise_loopback()
            door = Door(instance, "", ADDRESS, file, (status.st_dev, status.st_ino), *_sockets(ADDRESS, undo))
            nftport.load(TABLE, door.redirections())
        undo.pop_all()
    return door


def open_gateway(network: str, address: str) -> Door:
    """Open the door for the machines of a network, in the host's namespace; `lead` comes after."""
    with ExitStack() as undo:
        door = Door("", network, address, -1, (0, 0), *_sockets(address, undo))
        undo.pop_all()
    return door


def lead(table: str, doors: list[Door], before: frozenset[int]) -> frozenset[int]:
    """Lead the host's machines to their doors, by a table of each IP version; those that were there before may go."""
    wanted = [each for door in doors for each in door.redirections()]
    nftport.load(table, wanted)
    now = nftport.versions(wanted)
    nftport.remove(table, before - now)
    return now


def outgoing(door: Door, of_host: bool, kind: int, family: int) -> socket.socket:
    """Make a socket that sends from where the asker is, or from the host."""
    with nullcontext() if of_host or door.file < 0 else inside(door.file):
        item = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if kind == socket.SOCK_STREAM:  # closed, it is gone: one that says good-bye to a silent server keeps its namespace
        item.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return item


def _sockets(address: str, undo: ExitStack) -> tuple[socket.socket, socket.socket]:
    made = []
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        item = undo.enter_context(socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
        item.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # a gateway's bridge may be made anew at this moment
        item.bind((address, 0))
        made.append(item)
    made[1].listen(_WAITING)
    return made[0], made[1]


def _raise_loopback() -> None:
    """Bring lo up: an answer from 127.0.0.11 has no way while it is down, and the launcher comes later."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as item:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(item, _GET_FLAGS, request))[1]
        fcntl.ioctl(item, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))
