"""Whoever builds by a session, as the builder asks them: secrets, SSH agents, credentials, where outputs go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
from grpclib.client import Stream

from trivet.api.docker.buildkit import sync
from trivet.api.docker.buildkit.channel import Channel, Refused
from trivet.api.docker.buildkit.message import Account, Bytes, Empty, Host, Name, Packet
from trivet.base.error import TrivetError
from trivet.base.thread import in_thread
from trivet.build.caller import LARGEST, Ask, Line, NoAnswer, Reply
from trivet.build.error import BuildError
from trivet.oci import reference as references
from trivet.registry.auth import Credentials

SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CHECK, AGENT = "/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"
ACCOUNT, OUTPUT = "/moby.filesync.v1.Auth/Credentials", "/moby.filesync.v1.FileSend/DiffCopy"
PIECE = 32 << 10
HUB = "registry-1.docker.io"  # by this name clients look for what `docker login` without a name has stored


class SessionCaller:
    """A client that can be asked; `directory` is whether an output becomes files of its own. Spools into `spool`."""

    def __init__(self, channel: Channel, spool: Path, *, directory: bool) -> None:
        self.channel = channel
        self._spool = spool
        self._directory = directory
        self._tasks: set[asyncio.Task[None]] = set()

    async def offers(self, what: Ask, name: str, listed: Sequence[str]) -> bool:
        """Ask whether the client has it: nothing is listed beforehand."""
        method = CHECK if what == Ask.SSH else SECRET
        try:
            await self.channel.call(method, Name(name), Empty if what == Ask.SSH else Bytes, f"{what} {name}")
        except Refused as error:
            if what == Ask.SECRET and not error.absent:
                raise
            return False
        return True

    async def secret(self, name: str) -> bytes:
        """Get a secret."""
        found = await self.channel.call(SECRET, Name(name), Bytes, f"secret {name}")
        if len(found.data) > LARGEST:
            raise BuildError(f"secret {name} is larger than {LARGEST >> 10} KiB")
        return found.data

    async def credentials(self, domain: str) -> Credentials | None:
        """Get what the client knows of a registry."""
        host = HUB if domain == references.DEFAULT_DOMAIN else domain
        try:
            found = await self.channel.call(ACCOUNT, Host(host), Account, f"an account at {host}")
        except Refused:
            return None
        if not found.secret:
            return None
        return Credentials(found.user, found.secret) if found.user else Credentials("", "", identity=found.secret)

    async def ask(self, what: Ask, name: str) -> tuple[Line, Reply]:
        """Open a conversation with the client's agent, or with what takes an output."""
        if what == Ask.SSH:
            metadata = {"buildkit.ssh.id": [name]}
            return await self._bridge(AGENT, metadata, _agent, f"ssh {name}")
        if what == Ask.OUTPUT:
            talk = self._files if self._directory else _archive
            return await self._bridge(OUTPUT, {}, talk, "an output", Packet if self._directory else Bytes)
        raise NoAnswer(what, name)

    def close(self) -> None:
        """End what is still being said."""
        for task in self._tasks:
            task.cancel()

    async def _bridge(
        self, method: str, metadata: dict[str, list[str]], talk: Any, what: str, message: Any = Bytes
    ) -> tuple[Line, Reply]:
        ours, theirs = socket.socketpair()
        near = await asyncio.open_unix_connection(sock=ours)
        far = await asyncio.open_unix_connection(sock=theirs)

        async def work() -> None:
            try:
                async with self.channel.conversation(method, message, message, what, metadata) as stream:
                    await talk(stream, *far)
            except (TrivetError, OSError) as error:
                words = error.message if isinstance(error, TrivetError) else str(error)
                far[1].write(msgspec.json.encode(Reply(error=words)) + b"\n" if talk is not _agent else b"")
            else:
                far[1].write(b"{}\n" if talk is not _agent else b"")
            finally:
                far[1].close()

        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Line(*near), Reply()

    async def _files(
        self, stream: Stream[Any, Packet], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with tempfile.TemporaryFile(dir=self._spool) as unnamed:
            file = cast(BinaryIO, unnamed)
            while data := await reader.read(1 << 20):
                await in_thread(file.write, data)
            file.seek(0)
            await sync.send(stream, file)
            while await stream.recv_message() is not None:
                pass


async def _archive(stream: Stream[Any, Bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        await stream.send_message(Bytes(data))
    await stream.end()
    while await stream.recv_message() is not None:
        pass


async def _agent(stream: Stream[Any, Bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def outward() -> None:
        while data := await reader.read(PIECE):
            await stream.send_message(Bytes(data))
        await stream.end()

    task = asyncio.create_task(outward())
    try:
        while (message := await stream.recv_message()) is not None:
            writer.write(message.data)
            await writer.drain()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, TrivetError, OSError):
            await task
