"""The engine's side of its relay (`trivet.relay`): which ways it must carry, and that it runs.

Like the DNS server it follows from the records, outlives the engine, and is there only while somebody needs it.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from trivet.base.error import TrivetError
from trivet.client.schema_network import Port
from trivet.engine.network import policy
from trivet.engine.network.companion import Companion
from trivet.engine.network.model import Endpoint, NetworkRecord
from trivet.engine.network.policy import Population
from trivet.engine.network.ruleset import ANY, ANY6, LOOPBACK6
from trivet.relay import server as program

log = logging.getLogger(__name__)

PAUSE = 0.3
LOOPBACK = "127.0.0.1"
Look = Callable[[], tuple[list[NetworkRecord], list[Endpoint], Population]]

LOOPBACK_INTERFACE = re.compile(r"^0{31}1 .* lo$", re.MULTILINE)

Row = tuple[str, str, int, str, int]


def way(endpoint: Endpoint, port: Port) -> Row | None:
    """Say what the relay carries for a published port: protocol, address, port, target, its port; None for nothing.

    [::1] can't be translated to an address that is elsewhere, nor one IP version to the other.
    """
    if not endpoint.first or not endpoint.device:
        return None
    target, at = endpoint.address6 or endpoint.address, port.host_address or ANY
    if endpoint.address6 if ":" in at else endpoint.address:
        by_rule = at not in (ANY, ANY6, LOOPBACK6) or (at == ANY and endpoint.address6)
        at = "" if by_rule else LOOPBACK6
    return (port.protocol, at, port.host_port, target, port.container_port) if at else None


def ways(endpoints: Iterable[Endpoint], held: Collection[str] = ()) -> Iterator[Row]:
    """List what the relay carries; what needs every IPv6 address stands before [::1]'s alone.

    Where policies say who may come to an address (`held`), only the host comes by the relay: it would hide who it is.
    """
    rows = [row for endpoint in endpoints for port in endpoint.ports if (row := way(endpoint, port))]
    found = [_of_host(row) if row[3] in held else row for row in rows]
    whole = {(row[0], row[2]) for row in found if row[1] == ANY6}
    return (row for row in found if row[1] and (row[1] == ANY6 or ":" not in row[1] or (row[0], row[2]) not in whole))


def closed(networks: Iterable[NetworkRecord], people: Population) -> list[tuple[str, str]]:
    """List the subnets for which nothing is carried, as rules would drop it: who asks the relay has left its network.

    With each comes the host's own address in it. They are those of internal networks, and the addresses of instances
    whose way out policies restrict.
    """
    inner = [(subnet, own) for record in networks if record.internal for _, subnet, own in record.ranges()]
    return sorted((*inner, *((address, "") for address in policy.held(people, "out"))))


def _of_host(row: Row) -> Row:
    """Narrow a row to who asks from the host itself; to nobody where only others ask."""
    own = {ANY: LOOPBACK, ANY6: LOOPBACK6, LOOPBACK: LOOPBACK, LOOPBACK6: LOOPBACK6}
    return (row[0], own.get(row[1], ""), *row[2:])


class Carrier:
    """The relay of one engine. Methods may be called from any thread."""

    def __init__(self, directory: Path, look: Look) -> None:
        control = directory / "relay.sock"
        self._look = look
        self._relay = Companion(
            "relay of published ports", program, (str(control),), control, lambda: self.announce(again=True)
        )
        self._starting = False

    @property
    def told(self) -> bool:
        """Tell whether the relay runs and carries something."""
        return b'"rows": [[' in self._relay.told

    def announce(self, *, again: bool = False) -> None:
        """Have carried what the records say now. Raises `Unavailable`.

        It is when this returns, unless the relay must be started for a [::1] that nobody asked for: who waits?
        """
        with self._relay.lock:
            if self._relay.ended:
                return
            rows = self._rows()
            if rows and not self._relay.connect() and not self._wanted(rows):
                if self._starting:
                    return
                self._starting = True
                threading.Thread(target=self._later, name="relay", daemon=True).start()
            elif self._message(rows) != self._relay.told or (again and (rows or self._relay.connect())):
                self._tell(rows)

    def check(self) -> str:
        """Say what is wrong; "" when all is well, or nobody needs it."""
        with self._relay.lock:
            rows = self._rows()
            if not rows or self._starting:
                return ""
            found = self._relay.ask(self._message(rows))
        return (
            "; ".join(f"{key}: {problem}" for key, problem in found.items()) if found is not None else "it does not run"
        )

    def stop(self) -> None:
        """End the relay."""
        with self._relay.lock:
            self._relay.stop()

    def leave(self) -> None:
        """Let it go on without us."""
        with self._relay.lock:
            self._relay.leave()

    def _later(self) -> None:
        time.sleep(PAUSE)  # an instance that is gone by then needs none
        try:
            with self._relay.lock:
                self._starting = False
                if not self._relay.ended and (rows := self._rows()):
                    self._tell(rows)
        except (TrivetError, OSError) as error:
            log.warning("cannot start the relay: %s", error)

    def _rows(self) -> list[Row]:
        _, endpoints, people = self._look()
        return sorted(ways(endpoints, policy.held(people))) if LOOPBACK_INTERFACE.search(_interfaces()) else []

    def _wanted(self, rows: list[Row]) -> bool:
        """Tell whether somebody asked for what only the relay can do, more than a [::1] like 127.0.0.1."""
        _, endpoints, _ = self._look()
        named = any(port.host_address == LOOPBACK6 for endpoint in endpoints for port in endpoint.ports)
        return named or any(row[1] != LOOPBACK6 for row in rows)

    def _message(self, rows: list[Row]) -> bytes:
        networks, _, people = self._look()
        return json.dumps({"rows": rows, "closed": closed(networks, people) if rows else []}).encode()

    def _tell(self, rows: list[Row]) -> None:
        message = self._message(rows)
        for key, problem in self._relay.tell(message, needed=bool(rows)).items():
            log.warning("the relay cannot listen at %s: %s", key, problem)
        self._relay.told = message


def _interfaces() -> str:
    """Read which IPv6 addresses there are; a host without IPv6 has none."""
    path = Path("/proc/thread-self/net/if_inet6")
    return path.read_text() if path.exists() else ""
