"""The server: reads the book when the engine says so, opens and closes doors accordingly, and answers at them.

The engine sends "load" over a SOCK_SEQPACKET socket; {"version", "problems": {instance or network: text}} comes back.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

from trivet.resolver import book, door, wire
from trivet.resolver.book import Asker
from trivet.resolver.connection import MOST_OF_ONE, Connection
from trivet.resolver.door import Door
from trivet.resolver.forward import Errand, Forwarder
from trivet.resolver.loop import Loop

BATCH = 16  # datagrams taken from one door before the next has its turn
LINGER = 30.0  # seconds without anybody to answer before it ends


class Server:
    """One engine's server: `path` is the book, `table` the name of the host's nftables table."""

    def __init__(self, path: Path, table: str, version: str) -> None:
        self._path, self._table, self._version = path, table, version
        self._book = book.EMPTY
        self._doors: dict[str, Door] = {}
        self._connections: dict[str, set[Connection]] = {}
        self._led = frozenset({4, 6})  # IP versions of which the host may have a table
        self._forwarder = Forwarder()
        self._idle_since = time.monotonic()
        self.loop = Loop(self._sweep, self._busy)
        self._forwarder.loop = self.loop

    def load(self) -> dict[str, str]:
        """Read the book anew; returns what could not be done, by instance or network."""
        self._book = book.read(self._path.read_text())
        problems: dict[str, str] = {}
        wanted = self._wanted()
        for key in [key for key, each in self._doors.items() if wanted.get(key) != _mark(each)]:
            self._close(key)
        for key in wanted.keys() - self._doors.keys():
            try:
                self._open(key)
            except OSError as error:
                problems[key] = str(error)
        try:
            self._led = door.lead(self._table, [each for each in self._doors.values() if each.file < 0], self._led)
        except OSError as error:
            problems["host"] = str(error)
        self._idle_since = time.monotonic()
        return problems

    def admit(self, listener: socket.socket) -> None:
        """Take an engine's connection."""
        engine, _ = listener.accept()
        self.loop.read(engine, lambda: self._listen(engine))

    def _listen(self, engine: socket.socket) -> None:
        try:
            if engine.recv(64):
                reply = {"version": self._version, "problems": self.load()}
                engine.send(json.dumps(reply).encode())
                return
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"cannot read {self._path}: {error}", file=sys.stderr, flush=True)
        self.loop.forget(engine)
        engine.close()

    def _wanted(self) -> dict[str, tuple[object, ...]]:
        """List the doors there should be, with what tells them from older ones of the same instance."""
        found: dict[str, tuple[object, ...]] = {}
        for key, asker in self._book.askers.items():
            if asker.namespace and (identity := door.identify(asker.namespace)) != (0, 0):
                found[key] = (door.ADDRESS, identity)
        for key, network in self._book.networks.items():
            if network.machines:
                found[key] = (network.gateway, (0, 0))
        return found

    def _open(self, key: str) -> None:
        asker = self._book.askers.get(key)
        made = (
            door.open_inside(key, asker.namespace)
            if asker
            else door.open_gateway(key, self._book.networks[key].gateway)
        )
        self._doors[key] = made
        self._connections[key] = set()
        self.loop.read(made.datagrams, lambda: self._datagrams(key, made))
        self.loop.read(made.connections, lambda: self._connect(key, made))

    def _close(self, key: str) -> None:
        leaving = self._doors.pop(key)
        self._forwarder.leave(leaving)
        for connection in self._connections.pop(key):
            connection.close()
        self.loop.forget(leaving.datagrams)
        self.loop.forget(leaving.connections)
        leaving.close()

    def _datagrams(self, key: str, at: Door) -> None:
        for _ in range(BATCH):
            try:
                message, client = at.datagrams.recvfrom(wire.LARGEST + 1)
            except OSError:
                return

            def reply(data: bytes, client: tuple[str, int] = client) -> None:
                try:
                    at.datagrams.sendto(data, client)
                except OSError:
                    pass  # a full buffer: the client asks again

            if asker := self._asker(at, client[0]):
                self._answer(asker, at, message, reply, stream=False)

    def _connect(self, key: str, at: Door) -> None:
        try:
            item, client = at.connections.accept()
        except OSError:
            return
        item.setblocking(False)
        others = self._connections[key]
        asker = self._asker(at, client[0])
        if not asker or len(others) >= MOST_OF_ONE:
            item.close()
            return

        def ask(message: bytes, connection: Connection) -> None:
            if asker := self._asker(at, client[0]):
                self._answer(asker, at, message, connection.reply, stream=True)

        others.add(Connection(self.loop, item, ask, others.discard))

    def _asker(self, at: Door, address: str) -> Asker | None:
        """Tell who asks: at a gateway it is known by its address, and strangers get no answer."""
        key = at.instance or self._book.machines.get((at.network, address), "")
        return self._book.askers.get(key)

    def _answer(self, asker: Asker, at: Door, message: bytes, reply: door.Reply, *, stream: bool) -> None:
        try:
            query = wire.parse(message)
        except wire.Malformed as error:
            if error.answer or stream:
                reply(error.answer or wire.HEADER.pack(0, wire.RESPONSE | wire.FORMAT_ERROR, 0, 0, 0, 0))
            return
        known = book.answer(self._book, asker, query)
        room = 0xFFFF if stream else query.room
        if known:
            reply(wire.answer(query, *known, room))
        elif asker.servers:
            self._forwarder.forward(Errand(at, query, message, stream, list(asker.servers), reply))
        else:
            reply(wire.answer(query, wire.REFUSED, []))

    def _busy(self) -> bool:
        return self._forwarder.busy() or not self._doors or any(self._connections.values())

    def _sweep(self, now: float) -> None:
        self._forwarder.sweep(now)
        for connections in self._connections.values():
            for connection in [each for each in connections if each.deadline <= now]:
                connection.close()
        if self._doors:
            self._idle_since = now
        elif now - self._idle_since > LINGER:
            self.loop.ended = True


def _mark(each: Door) -> tuple[object, ...]:
    return each.address, each.identity


def main() -> None:
    """Serve: BOOK SOCKET TABLE VERSION. Says so on standard output once every door is open."""
    path, control, table, version = sys.argv[1:5]
    server = Server(Path(path), table, version)
    server.load()
    fresh = Path(f"{control}.{os.getpid()}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener:
        listener.bind(str(fresh))
        listener.listen(4)
        fresh.rename(control)
        server.loop.read(listener, lambda: server.admit(listener))
        os.write(1, b"ready\n")
        os.dup2(2, 1)
        server.loop.run()
