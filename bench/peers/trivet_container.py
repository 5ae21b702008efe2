"""trivet's container level once more, as an engine: bridge, crowds, small requests."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from bench.image import MARK
from bench.peers.door import Door
from bench.peers.peer import Run, command, composed, instant
from bench.peers.trivet import BIN, TrivetApi, read
from trivet.client.schema import InstanceRequest
from trivet.client.schema_network import EndpointRequest, PortRequest


class TrivetContainer(TrivetApi):
    """The container level by the typed client, with users of its own or the host's."""

    def __init__(self, *, users: bool) -> None:
        super().__init__("container", users=users)

    def bridged(self, *, published: bool) -> Run:
        """Create, start and stay with it until it is removed."""
        ports = [PortRequest(container_port=80)] if published else []
        request = msgspec.structs.replace(self._bridge("", MARK), auto_remove=True, ports=ports)
        began = time.monotonic()
        _, stream = self._client.instances.run(request)
        with stream:
            output, _ = read(stream)
        return Run(instant(output) - began, time.monotonic() - began)

    def application(self, folder: Path, *words: str, foreign: bool) -> None:
        """`trivet compose`, or docker-compose at the Docker door."""
        if foreign:
            composed(f"unix://{self._run}/docker.sock", folder, *words)
        else:
            verb, *options = words
            file = ("-f", folder / "docker-compose.yml", "-p", "bench")
            command([BIN / "trivet", "--host", self._host, "compose", verb, *file, *options])

    def begin(self, name: str, *, bridge: bool) -> None:
        """Create and start."""
        request = (self._bridge if bridge else self._request)(name, MARK, "idle")
        self._client.instances.create(request, start=True)

    def overview(self) -> int:
        """List."""
        return len(self._client.instances.list(all=True))

    def ping(self, times: int) -> None:
        """Ask for the version, on connections of their own, as this client has no other."""
        for _ in range(times):
            self._client.system.ping()

    def door(self) -> Door:
        """Return the other way in."""
        return Door(self._run / "docker.sock")

    def end(self, name: str) -> None:
        """Remove by force."""
        self._client.instances.remove(name, force=True)

    def pids(self) -> set[int]:
        """Ask for the processes."""
        return {instance.pid for instance in self._client.instances.list()}

    def daemon(self) -> int:
        """Return the engine's pid."""
        return self._client.system.info().pid

    def _bridge(self, name: str, *words: str) -> InstanceRequest:
        wish = [EndpointRequest(network="bridge")]
        return msgspec.structs.replace(self._request(name, *words), networks=wish)
