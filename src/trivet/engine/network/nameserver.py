"""The engine's side of its DNS server (`trivet.resolver`): what it is told, and that it runs.

    records ──▶ book (a file, replaced as a whole) ──▶ server: opens a door for each instance in it
                 ▲                                        │
                 └──── `announce` ◀── it ended ◀──────────┘

Everything follows from the records, so a server that was killed, or one of an older trivet, is replaced without anybody
noticing more than a question asked twice. It doesn't depend on the engine: names are found while that is away.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from trivet.engine.network import names
from trivet.engine.network.companion import Companion
from trivet.engine.network.model import PREDEFINED, Endpoint, NetworkRecord
from trivet.resolver import server as program

log = logging.getLogger(__name__)

_LOAD = b"load"

Look = Callable[[], tuple[list[NetworkRecord], list[Endpoint], list[Endpoint]]]


class Nameserver:
    """The DNS server of one engine. Methods may be called from any thread."""

    def __init__(self, directory: Path, table: str, look: Look, namespaces: Path) -> None:
        self.book, control = directory / "dns.json", directory / "dns.sock"
        self.table = f"{table}_dns"
        self.leaving = set[str]()  # instances that still ask, but aren't to be found any more
        self._look, self._namespaces = look, namespaces
        self._server = Companion(
            "DNS server",
            program,
            (str(self.book), str(control), self.table),
            control,
            lambda: self.announce(again=True),
            overlap=True,
        )
        self._changes = threading.Lock()
        self._wanted = self._done = 0

    def announce(self, *, again: bool = False) -> None:
        """Let the server know what the records say now; it does when this returns. Starts it if it isn't there.

        Nothing happens when nothing changed, unless `again`. Raises `Unavailable`.
        """
        with self._changes:
            self._wanted += 1
            mine = self._wanted
        with self._server.lock:
            if self._done >= mine and not again:
                return  # somebody else told it meanwhile
            with self._changes:
                latest = self._wanted
            content = self._content()
            if again or content != self._server.told:
                self._tell(content)
            self._done = latest

    def check(self) -> str:
        """Say what is wrong; "" when all is well, or nobody needs it."""
        with self._server.lock:
            if not _needed(self._content()):
                return ""
            found = self._server.ask(_LOAD)
        return "; ".join(found.values()) if found is not None else "it does not run"

    def stop(self) -> None:
        """End the server and forget what it was told."""
        with self._server.lock:
            self._server.stop()
            self.book.unlink(missing_ok=True)

    def leave(self) -> None:
        """Let it go on without us."""
        with self._server.lock:
            self._server.leave()

    def _content(self) -> bytes:
        return render(*self._look(), self._namespaces, self.leaving)

    def _tell(self, content: bytes) -> None:
        fresh = self.book.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.rename(self.book)
        for key, problem in self._server.tell(_LOAD, needed=_needed(content)).items():
            log.warning("no names for %s: %s", key[:12], problem)
        self._server.told = content


def _needed(content: bytes) -> bool:
    return b'"servers"' in content


def serves(network: NetworkRecord) -> bool:
    """Tell whether members of a network find one another by name (Docker's rule: not on its default network)."""
    return bool(network.ranges()) and network.name not in PREDEFINED


def render(
    networks: list[NetworkRecord],
    endpoints: list[Endpoint],
    far: list[Endpoint],
    namespaces: Path,
    leaving: Collection[str] = (),
) -> bytes:
    """Write the book (its shape is told in `resolver/book.py`); b'"servers"' is in it if anybody may ask.

    Instances that are `far` are found, and ask elsewhere.
    """
    served = {record.id: record for record in networks if serves(record)}
    ways_out = {record.id for record in networks if not record.internal}
    there = [endpoint for endpoint in endpoints if endpoint.device and endpoint.name]
    instances: dict[str, list[Endpoint]] = {}
    for endpoint in there:
        instances.setdefault(endpoint.instance, []).append(endpoint)
    hosts = names.upstream()
    rows = {
        key: {
            "namespace": str(namespaces / key) if uses[0].form == "netns" else "",
            "networks": [use.network for use in uses if use.network in served],
            "addresses": [[use.network, use.first] for use in uses if use.form == "tap" and _here(use, served)],
            "servers": _servers([use for use in uses if use.network in ways_out], hosts),
        }
        for key, uses in instances.items()
        if any(_here(use, served) for use in uses)
    }
    found = [*(use for use in there if use.instance not in leaving), *far]
    rooms = {
        key: _network(
            record,
            [use for use in found if use.network == key],
            machines=any(use.form == "tap" and use.network == key and record.bridged for use in there),
        )
        for key, record in served.items()
    }
    return json.dumps({"networks": rooms, "instances": rows}).encode()


def _here(use: Endpoint, served: Mapping[str, NetworkRecord]) -> bool:
    """Tell whether an instance can ask about a network; a machine needs the host on it."""
    return use.network in served and (use.form == "netns" or served[use.network].bridged)


def _network(record: NetworkRecord, members: list[Endpoint], *, machines: bool) -> dict[str, object]:
    return {
        "name": record.name,
        "gateway": record.gateways[0],
        "machines": machines,
        "members": [
            {
                "names": list(dict.fromkeys(member.names)),
                "addresses": [address for address in (member.address, member.address6) if address],
                "ports": sorted({(port.container_port, port.protocol) for port in member.ports}),
            }
            for member in members
        ],
    }


def _servers(uses: list[Endpoint], hosts: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """List whom to ask, by those of an instance's networks that lead outside. Without IPv4 the host asks for it."""
    if not uses:
        return []
    asked = [(server, False) for server in uses[0].servers] or hosts
    four = any(use.address for use in uses)
    return [(server, of_host or not (four or ":" in server)) for server, of_host in asked]
