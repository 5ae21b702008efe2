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
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from trivet.base.error import Unavailable
from trivet.engine.network import names
from trivet.engine.network.model import PREDEFINED, Endpoint, NetworkRecord
from trivet.resolver import server as program

log = logging.getLogger(__name__)

PATIENCE = 10.0
_BACKOFF, _LONGEST = 0.1, 10.0
_SOURCE = Path(program.__file__).parent
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from trivet.resolver.server import main; main()"

Look = Callable[[], tuple[list[NetworkRecord], list[Endpoint], list[Endpoint]]]


class Nameserver:
    """The DNS server of one engine. Methods may be called from any thread."""

    def __init__(self, directory: Path, table: str, look: Look, namespaces: Path) -> None:
        self.book, self.control, self.log = (directory / name for name in ("dns.json", "dns.sock", "dns.log"))
        self.table = f"{table}_dns"
        self.leaving = set[str]()  # instances that still ask, but aren't to be found any more
        self._look, self._namespaces = look, namespaces
        self._lock, self._changes = threading.Lock(), threading.Lock()
        self._wanted = self._done = 0
        self._told = b""
        self._link: socket.socket | None = None
        self._ended = False
        self._version = f"{zlib.crc32(b''.join(path.read_bytes() for path in sorted(_SOURCE.glob('*.py')))):08x}"

    def announce(self, *, again: bool = False) -> None:
        """Let the server know what the records say now; it does when this returns. Starts it if it isn't there.

        Nothing happens when nothing changed, unless `again`. Raises `Unavailable`.
        """
        with self._changes:
            self._wanted += 1
            mine = self._wanted
        with self._lock:
            if self._done >= mine and not again:
                return  # somebody else told it meanwhile
            with self._changes:
                latest = self._wanted
            content = render(*self._look(), self._namespaces, self.leaving)
            if again or content != self._told:
                self._tell(content)
            self._done = latest

    def check(self) -> str:
        """Say what is wrong; "" when all is well, or nobody needs it."""
        with self._lock:
            if b'"servers"' not in render(*self._look(), self._namespaces, self.leaving):
                return ""
            found = self._ask() if self._connect() else None
        return "; ".join(found.values()) if found is not None else "it does not run"

    def stop(self) -> None:
        """End the server and forget what it was told."""
        with self._lock:
            self._ended = True
            if self._connect():
                self._kill()
            for path in (self.book, self.control):
                path.unlink(missing_ok=True)
            self._told = b""

    def leave(self) -> None:
        """Let it go on without us."""
        with self._lock:
            self._ended = True
            self._hang_up()

    # inside; the lock is held

    def _tell(self, content: bytes) -> None:
        fresh = self.book.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.rename(self.book)
        needed = b'"servers"' in content
        for _ in range(2):
            if self._connect():
                problems = self._ask()
            elif needed:
                problems = self._start()
            else:
                problems = {}
            if problems is not None:
                for key, problem in problems.items():
                    log.warning("no names for %s: %s", key[:12], problem)
                self._told = content
                return
        raise Unavailable("the DNS server does not answer", hint=f"see {self.log}")

    def _ask(self) -> dict[str, str] | None:
        """Have it read the book; what it couldn't do, or None when it must be replaced."""
        link = self._link
        assert link
        try:
            link.send(b"load")
            reply = json.loads(link.recv(1 << 16) or b"{}")
        except (OSError, ValueError):
            reply = {}
        if reply.get("version") == self._version:
            problems: dict[str, str] = reply["problems"]
            return problems
        if reply:
            return self._start()  # an older one: the new one takes over before it goes
        self._kill()
        return None

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
        pid = _peer(link)
        threading.Thread(target=self._watch, args=(os.pidfd_open(pid), pid), name="names", daemon=True).start()
        return True

    def _start(self) -> dict[str, str] | None:
        """Start a server in place of the one we are connected to, if any. Raises `Unavailable`."""
        source = str(_SOURCE.parent.parent)
        arguments = [source, str(self.book), str(self.control), self.table, self._version]
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
            raise Unavailable("cannot start the DNS server", hint=f"see {self.log}")
        child.returncode = 0  # `_watch` collects it
        if self._link:
            self._kill()
        return self._ask() if self._connect() else None

    def _kill(self) -> None:
        """End the server we are connected to."""
        assert self._link
        with suppress(OSError):
            os.kill(_peer(self._link), signal.SIGKILL)
        self._hang_up()

    def _hang_up(self) -> None:
        if self._link:
            self._link.close()
            self._link = None

    def _watch(self, handle: int, pid: int) -> None:
        """Wait for a server's end; when it was not meant, start another."""
        begun = time.monotonic()
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
        os.close(handle)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        with self._lock:
            meant = self._ended or not self._link or _peer(self._link) != pid
            if meant:
                return
            self._hang_up()
        time.sleep(_BACKOFF if time.monotonic() - begun > _LONGEST else 1.0)
        if not self._ended:
            with suppress(Exception):  # it is told in the log, and `system check` finds it
                self.announce(again=True)


def serves(network: NetworkRecord) -> bool:
    """Tell whether members of a network find one another by name (Docker's rule: not on its default network)."""
    return bool(network.subnet) and network.name not in PREDEFINED


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
    there = [endpoint for endpoint in endpoints if endpoint.device]
    instances: dict[str, list[Endpoint]] = {}
    for endpoint in there:
        instances.setdefault(endpoint.instance, []).append(endpoint)
    hosts = names.upstream()
    rows = {
        key: {
            "namespace": str(namespaces / key) if uses[0].form == "netns" else "",
            "networks": [use.network for use in uses if use.network in served],
            "addresses": [[use.network, use.address] for use in uses if use.form == "tap" and _here(use, served)],
            "servers": _servers(uses, hosts) if any(use.network in ways_out for use in uses) else [],
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
        "gateway": record.gateway,
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
    return [(server, False) for server in uses[0].servers] or hosts


def _peer(link: socket.socket) -> int:
    packed = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[0])
