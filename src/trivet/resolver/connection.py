"""Questions over TCP (RFC 1035, section 4.2.2): a length of two bytes before each message, one at a time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from trivet.resolver.loop import Loop
from trivet.resolver.wire import LARGEST

IDLE = 5.0  # seconds to ask, or to take the answer
MOST_OF_ONE = 32


class Connection:
    """A client's connection; `ask` is called with (message, connection) and `reply` follows."""

    def __init__(
        self,
        loop: Loop,
        item: socket.socket,
        ask: Callable[[bytes, Connection], None],
        gone: Callable[[Connection], None],
    ) -> None:
        self._loop, self._socket, self._ask, self._gone = loop, item, ask, gone
        self._received, self._sending = b"", b""
        self._asked = self._taking = False
        self.deadline = time.monotonic() + IDLE
        loop.read(item, self._read)

    def reply(self, message: bytes) -> None:
        """Answer; a connection that is closed already is fine."""
        if self._socket.fileno() < 0:
            return
        self.deadline = time.monotonic() + IDLE
        self._sending = len(message).to_bytes(2, "big") + message
        self._write()

    def close(self) -> None:
        """End it."""
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket)
            self._socket.close()
            self._gone(self)

    def _read(self) -> None:
        try:
            data = self._socket.recv(LARGEST + 2 - len(self._received))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        size = int.from_bytes(self._received[:2], "big")
        if not data or size > LARGEST:
            self.close()
        else:
            self._take()

    def _take(self) -> None:
        """Ask what is there in whole messages, one after the other; until one is answered no more is read."""
        if self._taking:  # answered at once: the loop below goes on
            return
        self._taking = True
        while not self._asked and self._socket.fileno() >= 0 and len(self._received) >= 2:
            end = 2 + int.from_bytes(self._received[:2], "big")
            if len(self._received) < end:
                break
            message, self._received = self._received[2:end], self._received[end:]
            self._asked = True
            self._loop.forget(self._socket)
            self._ask(message, self)
        self._taking = False

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._sending)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._sending = self._sending[sent:]
        if self._sending:
            self._loop.write(self._socket, self._write)
            return
        self._asked = False
        self._loop.read(self._socket, self._read)
        self._take()
