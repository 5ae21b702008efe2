"""Requests to an engine, raw."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlencode

from tests.docker.conftest import Tool


class Link(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=30)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


def ask(
    tool: Tool, method: str, where: str, body: Any = None, status: int | tuple[int, ...] = 200, /, **query: str
) -> tuple[bytes, http.client.HTTPResponse]:
    """Make one request, whose status must be as said, or one of those."""
    link = Link(tool.socket)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    link.request(method, f"{where}?{urlencode(query)}" if query else where, raw, {"Content-Type": "application/json"})
    answer = link.getresponse()
    content = answer.read()
    link.close()
    assert answer.status in (status if isinstance(status, tuple) else (status,)), (
        f"{method} {where}: {answer.status} {content!r}"
    )
    return content, answer


def value(tool: Tool, method: str, where: str, body: Any = None, status: int = 200, /, **query: str) -> Any:
    """The answer's JSON."""
    return json.loads(ask(tool, method, where, body, status, **query)[0])
