"""Datagrams there and back: each client has a socket of its own towards the instance, until it is quiet for a while."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from typing import Any

QUIET = 60.0
MOST = 1024
LARGEST = 1 << 16

Address = tuple[Any, ...]
Closed = list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]]


def shut(closed: Closed, address: str) -> bool:
    """Tell whether nothing is carried for an address; the host's own in a subnet is excepted."""
    if not closed:
        return False
    found = ipaddress.ip_address(address.partition("%")[0])
    return any(found in subnet and str(found) != own for subnet, own in closed)


class Datagrams:
    """One door for datagrams."""

    def __init__(self, door: socket.socket, target: tuple[str, int], closed: Closed) -> None:
        self._door, self._target, self._closed = door, target, closed
        self._loop = asyncio.get_running_loop()
        self._known: OrderedDict[Address, tuple[socket.socket, asyncio.TimerHandle]] = OrderedDict()
        self._loop.add_reader(door, self._come)

    def close(self) -> None:
        """Close the door and forget everybody."""
        self._loop.remove_reader(self._door)
        self._door.close()
        for client in list(self._known):
            self._forget(client)

    def _come(self) -> None:
        try:
            data, client = self._door.recvfrom(LARGEST)
            if not shut(self._closed, client[0]):
                self._way(client).send(data)
        except OSError:  # nobody listens there; the client will ask again, or not
            pass

    def _way(self, client: Address) -> socket.socket:
        if client in self._known:
            way, timer = self._known.pop(client)
            timer.cancel()
        else:
            if len(self._known) >= MOST:
                self._forget(next(iter(self._known)))
            family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
            way = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            way.connect(self._target)
            self._loop.add_reader(way, self._back, way, client)
        self._known[client] = (way, self._loop.call_later(QUIET, self._forget, client))
        return way

    def _back(self, way: socket.socket, client: Address) -> None:
        try:
            self._door.sendto(way.recv(LARGEST), client)
        except OSError:
            pass

    def _forget(self, client: Address) -> None:
        way, timer = self._known.pop(client)
        timer.cancel()
        self._loop.remove_reader(way)
        way.close()
