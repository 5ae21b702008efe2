"""Asking other servers what the book doesn't know, and handing their answers on as they are.

Every question leaves from a socket of its own (a port of the kernel's choice) under an id of its own: who wants to
answer in the server's place has to guess both. Bounded in number, per asker and altogether, and in time.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable

from trivet.resolver import wire
from trivet.resolver.door import PORT, Door, outgoing
from trivet.resolver.loop import Loop
from trivet.resolver.wire import Query

PATIENCE = 2.0  # seconds for one server; a client waits five (resolv.conf(5))
MOST, MOST_OF_ONE = 1024, 128
_BEST_ANSWERS = (wire.OK, wire.NO_SUCH_NAME)

Deliver = Callable[[bytes], None]


class Errand:
    """One question on its way: `servers` are those still to be asked."""

    def __init__(
        self, door: Door, query: Query, message: bytes, stream: bool, servers: list[tuple[str, bool]], deliver: Deliver
    ) -> None:
        self.door, self.query, self.stream, self.servers, self.deliver = door, query, stream, servers, deliver
        self.number = int.from_bytes(os.urandom(2), "big")
        self.message = wire.renumber(message, self.number)
        self.deadline = 0.0
        self.socket: socket.socket | None = None
        self.received = b""
        self.last = b""  # a refusal: better than nothing


class Forwarder:
    """All questions on their way."""

    def __init__(self) -> None:
        self._errands: set[Errand] = set()
        self._of_one: Counter[str] = Counter()
        self.loop: Loop

    def busy(self) -> bool:
        """Tell whether something is on its way."""
        return bool(self._errands)

    def forward(self, errand: Errand) -> None:
        """Ask the first server that can be asked; `deliver` is called once, now or later."""
        if len(self._errands) >= MOST or self._of_one[errand.door.key] >= MOST_OF_ONE:
            errand.deliver(wire.answer(errand.query, wire.SERVER_FAILURE, []))
            return
        self._errands.add(errand)
        self._of_one[errand.door.key] += 1
        self._next(errand)

    def sweep(self, now: float) -> None:
        """Go on to the next server where one doesn't answer."""
        for errand in [each for each in self._errands if each.deadline <= now]:
            self._next(errand)

    def leave(self, door: Door) -> None:
        """Forget what was asked at a door that closes."""
        for errand in [each for each in self._errands if each.door is door]:
            self._drop(errand)

    def _next(self, errand: Errand) -> None:
        self._hang_up(errand)
        while errand.servers:
            address, of_host = errand.servers.pop(0)
            try:
                self._ask(errand, address, of_host)
            except OSError:  # no way there, or nobody listens
                self._hang_up(errand)
                continue
            return
        self._end(errand, errand.last or wire.answer(errand.query, wire.SERVER_FAILURE, []))

    def _ask(self, errand: Errand, address: str, of_host: bool) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_STREAM if errand.stream else socket.SOCK_DGRAM
        errand.socket = item = outgoing(errand.door, of_host, kind, family)
        errand.deadline = time.monotonic() + PATIENCE
        errand.received = b""
        try:
            item.connect((address, PORT))
        except BlockingIOError:
            self.loop.write(item, lambda: self._connected(errand))
            return
        self._connected(errand)

    def _connected(self, errand: Errand) -> None:
        assert errand.socket
        try:
            size = len(errand.message).to_bytes(2, "big") if errand.stream else b""
            errand.socket.send(size + errand.message)
        except OSError:
            self._next(errand)
            return
        self.loop.read(errand.socket, lambda: self._answered(errand))

    def _answered(self, errand: Errand) -> None:
        assert errand.socket
        try:
            data = errand.socket.recv(0xFFFF)
        except BlockingIOError:
            return
        except OSError:
            self._next(errand)
            return
        if errand.stream:
            errand.received += data
            if data and len(errand.received) < 2 + int.from_bytes(errand.received[:2], "big"):
                return
            data = errand.received[2:]
        if not wire.matches(errand.query, errand.number, data):
            if errand.stream:
                self._next(errand)
            return
        data = wire.renumber(data, errand.query.id)
        if wire.code(data) in _BEST_ANSWERS or not errand.servers:
            self._end(errand, data)
        else:
            errand.last = data
            self._next(errand)

    def _end(self, errand: Errand, reply: bytes) -> None:
        self._drop(errand)
        errand.deliver(reply)

    def _drop(self, errand: Errand) -> None:
        self._hang_up(errand)
        self._errands.discard(errand)
        self._of_one[errand.door.key] -= 1
        if not self._of_one[errand.door.key]:
            del self._of_one[errand.door.key]

    def _hang_up(self, errand: Errand) -> None:
        if errand.socket:
            self.loop.forget(errand.socket)
            errand.socket.close()
            errand.socket = None
