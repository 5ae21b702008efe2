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
from trivet.engine.network.companion import Companion
from trivet.engine.network.model import Endpoint
from trivet.engine.network.ruleset import ANY, ANY6, LOOPBACK6
from trivet.relay import server as program

log = logging.getLogger(__name__)

PAUSE = 0.3
_NOTHING = b"[]"

LOOPBACK_INTERFACE = re.compile(r"^0{31}1 .* lo$", re.MULTILINE)

Row = tuple[str, str, int, str, int]


def way(endpoint: Endpoint, port: Port) -> Row | None:
    """Say what the relay carries for a published port: protocol, address, port, target, its port; None for nothing.

    [::1] can't be translated to an address that is elsewhere, nor IPv6 to IPv4.
    """
    if not endpoint.address or not endpoint.device:
        return None
    target = endpoint.address6 or endpoint.address
    if port.host_address in ("", ANY):
        at = "" if endpoint.address6 else LOOPBACK6
    elif port.host_address == ANY6:
        at = LOOPBACK6 if endpoint.address6 else ANY6
    else:
        beside = ":" in port.host_address and (port.host_address == LOOPBACK6 or not endpoint.address6)
        at = port.host_address if beside else ""
    return (port.protocol, at, port.host_port, target, port.container_port) if at else None


def ways(endpoints: Iterable[Endpoint], held: Collection[str] = ()) -> Iterator[Row]:
    """List what the relay carries; what needs every IPv6 address stands before [::1]'s alone.

    Where policies say who may come to an address (`held`), only the host comes by the relay: it would hide who it is.
    """
    found = [
        row
        for endpoint in endpoints
        for port in endpoint.ports
        if (row := way(endpoint, port)) and (row[1] == LOOPBACK6 or endpoint.address not in held)
    ]
    whole = {(row[0], row[2]) for row in found if row[1] == ANY6}
    return (row for row in found if row[1] == ANY6 or (row[0], row[2]) not in whole)


class Carrier:
    """The relay of one engine. Methods may be called from any thread."""

    def __init__(self, directory: Path, look: Callable[[], Iterable[Row]]) -> None:
        control = directory / "relay.sock"
        self._look = look
        self._relay = Companion(
            "relay of published ports", program, (str(control),), control, lambda: self.announce(again=True)
        )
        self._starting = False

    @property
    def told(self) -> bool:
        """Tell whether the relay runs and carries something."""
        return self._relay.told not in (b"", _NOTHING)

    def announce(self, *, again: bool = False) -> None:
        """Have carried what the records say now. Raises `Unavailable`.

        It is when this returns, unless the relay must be started for no more than [::1]: nobody waits for that.
        """
        with self._relay.lock:
            if self._relay.ended:
                return
            rows = self._rows()
            if rows and not self._relay.connect() and all(row[1] == LOOPBACK6 for row in rows):
                if self._starting:
                    return
                self._starting = True
                threading.Thread(target=self._later, name="relay", daemon=True).start()
            elif _message(rows) != self._relay.told or (again and (rows or self._relay.connect())):
                self._tell(rows)

    def check(self) -> str:
        """Say what is wrong; "" when all is well, or nobody needs it."""
        with self._relay.lock:
            rows = self._rows()
            if not rows or self._starting:
                return ""
            found = self._relay.ask(_message(rows))
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
        return sorted(self._look()) if LOOPBACK_INTERFACE.search(_interfaces()) else []

    def _tell(self, rows: list[Row]) -> None:
        for key, problem in self._relay.tell(_message(rows), needed=bool(rows)).items():
            log.warning("the relay cannot listen at %s: %s", key, problem)
        self._relay.told = _message(rows)


def _message(rows: list[Row]) -> bytes:
    return json.dumps(rows).encode()


def _interfaces() -> str:
    """Read which IPv6 addresses there are; a host without IPv6 has none."""
    path = Path("/proc/thread-self/net/if_inet6")
    return path.read_text() if path.exists() else ""
