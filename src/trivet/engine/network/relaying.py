"""The engine's side of its relay (`trivet.relay`): which ways it must carry, and that it runs.

Like the DNS server it follows from the records, outlives the engine, and is there only while somebody needs it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from trivet.base.error import TrivetError, Unavailable
from trivet.client.schema import Port
from trivet.engine.network.model import Endpoint
from trivet.engine.network.ruleset import ANY, ANY6, LOOPBACK6
from trivet.relay import server as program

log = logging.getLogger(__name__)

PATIENCE = 10.0
AGAIN = 1.0
PAUSE = 0.3
_SOURCE = Path(program.__file__).parent
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from trivet.relay.server import main; main()"

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
        self.control, self.log = directory / "relay.sock", directory / "relay.log"
        self._look = look
        self._lock = threading.Lock()
        self._told: list[Row] = []
        self._link: socket.socket | None = None
        self._starting = False
        self._ended = False
        self._version = f"{zlib.crc32(b''.join(path.read_bytes() for path in sorted(_SOURCE.glob('*.py')))):08x}"

    def announce(self, *, again: bool = False) -> None:
        """Have carried what the records say now. Raises `Unavailable`.

        It is when this returns, unless the relay must be started for no more than [::1]: nobody waits for that.
        """
        with self._lock:
            if self._ended:
                return
            rows = self._rows()
            if rows and not self._connect() and all(row[1] == LOOPBACK6 for row in rows):
                if self._starting:
                    return
                self._starting = True
                threading.Thread(target=self._later, name="relay", daemon=True).start()
            elif rows != self._told or (again and (rows or self._connect())):
                self._tell(rows)

    def check(self) -> str:
        """Say what is wrong; "" when all is well, or nobody needs it."""
        with self._lock:
            rows = self._rows()
            if not rows or self._starting:
                return ""
            if not self._connect():
                return "it does not run"
            return "; ".join(f"{key}: {problem}" for key, problem in (self._ask(rows) or {}).items())

    def stop(self) -> None:
        """End the relay."""
        with self._lock:
            self._ended = True
            if self._connect():
                self._kill()
            self.control.unlink(missing_ok=True)

    def leave(self) -> None:
        """Let it go on without us."""
        with self._lock:
            self._ended = True
            self._hang_up()

    def _later(self) -> None:
        threading.Event().wait(PAUSE)  # an instance that is gone by then needs none
        try:
            with self._lock:
                self._starting = False
                if not self._ended and (rows := self._rows()):
                    self._tell(rows)
        except (TrivetError, OSError) as error:
            log.warning("cannot start the relay: %s", error)

    # inside; the lock is held

    def _rows(self) -> list[Row]:
        return sorted(self._look()) if LOOPBACK_INTERFACE.search(_interfaces()) else []

    def _tell(self, rows: list[Row]) -> None:
        for _ in range(2):
            if self._connect() or (rows and self._start()):
                problems = self._ask(rows)
            else:
                problems = {}
            if problems is not None:
                for key, problem in problems.items():
                    log.warning("the relay cannot listen at %s: %s", key, problem)
                self._told = rows
                return
        raise Unavailable("the relay of published ports does not answer", hint=f"see {self.log}")

    def _ask(self, rows: list[Row]) -> dict[str, str] | None:
        """Tell it the rows; what it couldn't do, or None when it must be replaced."""
        assert self._link
        try:
            self._link.send(json.dumps(rows).encode())
            reply = json.loads(self._link.recv(1 << 20) or b"{}")
        except (OSError, ValueError):
            reply = {}
        if reply.get("version") != self._version:
            self._kill()
            return None
        problems: dict[str, str] = reply["problems"]
        return problems

    def _connect(self) -> bool:
        if self._link:
            return True
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        link.settimeout(PATIENCE)
        try:
            link.connect(str(self.control))
        except OSError:
            link.close()
            return False
        self._link = link
        threading.Thread(target=self._watch, args=(os.pidfd_open(_peer(link)), link), name="relay", daemon=True).start()
        return True

    def _start(self) -> bool:
        """Start one. Raises `Unavailable`."""
        arguments = [str(_SOURCE.parent.parent), str(self.control), self._version]
        with self.log.open("wb") as errors:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, *arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd="/", start_new_session=True,
            )  # fmt: skip
        assert child.stdout
        ready = select.select([child.stdout], [], [], PATIENCE)[0] and child.stdout.read(1)
        child.stdout.close()
        if not ready:
            child.kill()
            child.wait()
            raise Unavailable("cannot start the relay of published ports", hint=f"see {self.log}")
        child.returncode = 0  # `_watch` collects it
        return self._connect()

    def _kill(self) -> None:
        assert self._link
        with suppress(OSError):
            os.kill(_peer(self._link), signal.SIGKILL)
        self._hang_up()

    def _hang_up(self) -> None:
        if self._link:
            self._link.close()
            self._link = None

    def _watch(self, handle: int, link: socket.socket) -> None:
        """Wait for its end; when that was not meant, start another."""
        pid = _peer(link)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
        os.close(handle)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        with self._lock:
            if self._ended or self._link is not link:
                return
            self._hang_up()
            self._told = []
        if not threading.Event().wait(AGAIN) and not self._ended:
            with suppress(Exception):  # it is told in the log, and `system check` finds it
                self.announce(again=True)


def _interfaces() -> str:
    """Read which IPv6 addresses there are; a host without IPv6 has none."""
    path = Path("/proc/thread-self/net/if_inet6")
    return path.read_text() if path.exists() else ""


def _peer(link: socket.socket) -> int:
    packed = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[0])
