"""Docker's API on a unix socket, whoever stands behind it: the requests that docker-py and the command make."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from pathlib import Path
from typing import Any

from bench.image import MARK, NAME
from bench.peers.peer import PATIENCE, PeerFailed


class Door:
    """One engine's; each request has a connection of its own. Several threads may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, name: str, *, bridge: bool) -> None:
        """Create an idle container, and start it."""
        body = {"Image": NAME, "Cmd": [MARK, "idle"], "HostConfig": {"NetworkMode": "bridge" if bridge else "none"}}
        key = json.loads(self.ask("POST", f"/containers/create?name={name}", body))["Id"]
        self.ask("POST", f"/containers/{key}/start")

    def overview(self) -> int:
        """List all containers; returns how many there are."""
        return len(json.loads(self.ask("GET", "/containers/json?all=1")))

    def ping(self, times: int) -> None:
        """Ask whether it is there, so many times on one connection."""
        with contextlib.closing(_Connection(self._path)) as connection:
            for _ in range(times):
                connection.request("GET", "/_ping")
                connection.getresponse().read()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """Make a request. Raises `PeerFailed`."""
        with self.sent(method, path, body) as connection:
            try:
                response = connection.getresponse()
                answer = response.read()
            except http.client.HTTPException as error:
                raise PeerFailed(f"docker: {method} {path}: it hung up ({error})") from error
        if response.status >= 400:
            raise PeerFailed(f"docker: {method} {path}: {answer.decode(errors='replace').strip()}")
        return answer

    def sent(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> contextlib.closing[http.client.HTTPConnection]:
        """Make a request whose answer is read later."""
        connection = _Connection(self._path)
        text = json.dumps(body) if body is not None else None
        connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        return contextlib.closing(connection)


class _Connection(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))
