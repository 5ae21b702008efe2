"""Carry connections to published ports that no rule can lead: from [::1], and to an instance of the other IP version.

    control     a sequence-packet socket; a message is {"rows": [row], "closed": [[subnet, own]]}, the answer
                {"version", "problems"}
    row         [protocol, address, port, target, target port]
    closed      whom nothing is carried for, but for the host's own address: rules would not let them through either

What is carried is what the last message said. It goes on when the engine doesn't; without rows it ends after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from trivet.relay.datagram import Closed, Datagrams, shut

Row = tuple[str, str, int, str, int]
CHUNK = 1 << 16
WAITING = 128
MOST = 1000  # connections at a time; more wait in the kernel's queue
LARGEST = 1 << 20
LINGER = 300.0


class Relay:
    """The doors that are open now."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._closed: Closed = []
        self._doors: dict[Row, asyncio.Task[None] | Datagrams] = {}
        self._room = asyncio.Semaphore(MOST)
        self._carried = set[asyncio.Task[None]]()
        self._ending: asyncio.TimerHandle | None = None
        self.over = asyncio.Event()

    async def serve(self, control: socket.socket) -> None:
        """Take messages from everybody who comes."""
        loop = asyncio.get_running_loop()
        while True:
            link, _ = await loop.sock_accept(control)
            link.setblocking(False)
            self._keep(self._converse(link))

    async def _converse(self, link: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with link:
            while message := await loop.sock_recv(link, LARGEST):
                said = json.loads(message)
                self._closed[:] = [(ipaddress.ip_network(subnet), own) for subnet, own in said["closed"]]
                problems = await self._open({tuple(row) for row in said["rows"]})
                reply = json.dumps({"version": self._version, "problems": problems})
                await loop.sock_sendall(link, reply.encode())
                self._rest()

    async def _open(self, rows: set[Row]) -> dict[str, str]:
        """Close doors that nobody wants, open those that are missing."""
        leaving = [self._doors.pop(row) for row in set(self._doors) - rows]
        for door in leaving:
            door.cancel() if isinstance(door, asyncio.Task) else door.close()
        ending = [door for door in leaving if isinstance(door, asyncio.Task)]
        await asyncio.gather(*ending, return_exceptions=True)  # a narrower door can't be opened before
        problems = {}
        for row in rows - set(self._doors):
            try:
                self._doors[row] = self._door(row)
            except OSError as error:
                problems[f"[{row[1]}]:{row[2]}/{row[0]}"] = error.strerror or str(error)
        return problems

    def _rest(self) -> None:
        """Without doors, end after a while: instances that come and go shouldn't each start a relay."""
        if self._ending:
            self._ending.cancel()
            self._ending = None
        if not self._doors:
            self._ending = asyncio.get_running_loop().call_later(LINGER, self.over.set)

    def _door(self, row: Row) -> asyncio.Task[None] | Datagrams:
        protocol, address, port, target, target_port = row
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        door = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol == "tcp":
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((address, port))
            if protocol == "udp":
                return Datagrams(door, (target, target_port), self._closed)
            door.listen(WAITING)
        except BaseException:
            door.close()
            raise
        return asyncio.create_task(self._accept(door, (target, target_port)))

    async def _accept(self, door: socket.socket, target: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        with door:
            while True:
                await self._room.acquire()
                try:
                    client, (address, *_) = await loop.sock_accept(door)
                except OSError:  # out of descriptors, or gone before we looked
                    self._room.release()
                    await asyncio.sleep(0.05)
                    continue
                except BaseException:
                    self._room.release()
                    raise
                if shut(self._closed, address):
                    client.close()
                    self._room.release()
                    continue
                client.setblocking(False)
                self._keep(self._carry(client, target))

    async def _carry(self, client: socket.socket, target: tuple[str, int]) -> None:
        """Carry one connection, each half until its own end."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        try:
            with (
                contextlib.suppress(OSError),
                client,
                socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as server,
            ):
                await loop.sock_connect(server, target)
                for end in (client, server):  # who vanished without a word must not keep its place for ever
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                await _both(_half(client, server), _half(server, client))
        finally:
            self._room.release()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)


async def _both(*halves: Coroutine[Any, Any, None]) -> None:
    """Wait for both halves, or for the first that fails and the end of the other.

    One that still waited for a socket that was closed would do so in place of the next one with its descriptor, which
    nobody would be told of then (asyncio's selector goes by descriptors).
    """
    tasks = [asyncio.create_task(half) for half in halves]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _half(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, CHUNK):
        await loop.sock_sendall(sink, data)
    sink.shutdown(socket.SHUT_WR)


async def run(control: socket.socket, version: str) -> None:
    """Be the relay behind a control socket; say so on standard output."""
    relay = Relay(version)
    serving = asyncio.create_task(relay.serve(control))
    os.write(1, b".")
    os.close(1)
    await relay.over.wait()
    serving.cancel()


def main() -> None:
    """Run with the control socket's path and the program's version as arguments."""
    path = Path(sys.argv[1])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as control:
        path.unlink(missing_ok=True)
        control.bind(str(path))
        path.chmod(0o600)
        control.listen(8)
        asyncio.run(run(control, sys.argv[2]))
