"""What a build may ask its caller for, served over connections of their own (see `build/caller.py`).

One connection waits at the engine. When it is asked something, a thread of its own answers, and the next
connection is opened.
"""

from __future__ import annotations

import contextlib
import os
import threading
from _socket import AF_UNIX, SHUT_RDWR, SHUT_WR, socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from trivet.base.error import TrivetError
from trivet.client.connection import Incoming, Response
from trivet.client.transport import Transport

if TYPE_CHECKING:
    from pathlib import Path

PATH = "/v1/build/session"
PIECE = 64 << 10


class Line:
    """A connection on which the engine has asked for something."""

    def __init__(self, sock: socket, incoming: Incoming) -> None:
        self.socket = sock
        self.incoming = incoming

    def reply(self, **fields: Any) -> None:
        """Answer the question; content may follow."""
        self.write(msgspec.json.encode(fields) + b"\n")

    def write(self, data: bytes, /) -> int:
        """Send bytes."""
        self.socket.sendall(data)
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        """Receive bytes, at most `size`; b"" at the end."""
        return self.incoming.some(size if size > 0 else PIECE)


Answer = Callable[[str, Line], None]
"""Answers a question about something named; a `TrivetError` or OSError is told to the engine."""


class Errands:
    """Serves one build. Context manager; `key` goes into the build's request."""

    def __init__(self, transport: Transport, answers: Mapping[str, Answer]) -> None:
        """`answers` maps what may be asked for (secret, ssh, context, output, shell) to who answers."""
        self.key = os.urandom(16).hex() if answers else ""
        self._transport = transport
        self._answers = answers
        self._waiting: Response | None = None
        self._over = False

    def __enter__(self) -> Errands:
        if self.key:
            threading.Thread(target=self._wait, args=(self._open(),), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over = True
        if self._waiting is not None:
            with contextlib.suppress(OSError):
                self._waiting.socket.shutdown(SHUT_RDWR)

    def _open(self) -> Response:
        headers = {"Connection": "Upgrade", "Upgrade": "trivet-stream"}
        self._waiting = self._transport.request("POST", PATH, {"key": self.key}, b"", **headers)
        return self._waiting

    def _wait(self, response: Response) -> None:
        """Wait on one connection after the other."""
        while True:
            try:
                question = response.incoming.line()
            except (TrivetError, OSError):
                response.close()
                return
            threading.Thread(target=self._answer, args=(response, question), daemon=True).start()
            if self._over:
                return
            try:
                response = self._open()
            except (TrivetError, OSError):
                return

    def _answer(self, response: Response, question: bytes) -> None:
        line = Line(response.socket, response.incoming)
        try:
            asked = msgspec.json.decode(question)
            answer = self._answers.get(asked["ask"])
            if answer is None:
                line.reply(error=f"{asked['ask']} {asked['name']} is not offered")
            else:
                answer(asked["name"], line)
        except TrivetError as error:
            self._fail(line, error.message)
        except OSError as error:
            self._fail(line, f"{error.filename or asked['name']}: {(error.strerror or str(error)).lower()}")
        finally:
            response.close()

    def _fail(self, line: Line, reason: str) -> None:
        with contextlib.suppress(OSError):
            line.reply(error=reason)


def relay(line: Line, path: Path) -> None:
    """Connect the engine with a Unix socket, e.g. an SSH agent, until either side hangs up."""
    with contextlib.closing(socket(AF_UNIX)) as agent:
        agent.connect(os.fspath(path))
        line.reply()
        back = threading.Thread(target=_carry, args=(agent.recv, line.socket.sendall), daemon=True)
        back.start()
        _carry(line.read, agent.sendall)
        agent.shutdown(SHUT_WR)
        back.join()


def _carry(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
    with contextlib.suppress(TrivetError, OSError):
        while data := read(PIECE):
            write(data)
