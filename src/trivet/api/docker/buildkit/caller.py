"""Whoever builds by a session, as the builder asks them: secrets, SSH agents, credentials, where outputs go."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
from grpclib.client import Stream

from trivet.api.docker.buildkit import store, sync
from trivet.api.docker.buildkit.channel import Channel, Refused
from trivet.api.docker.buildkit.message import Account, Bytes, Empty, Host, Name, Packet
from trivet.api.docker.buildkit.pipe import carry, pour
from trivet.api.transfer import spooled
from trivet.base.error import TrivetError
from trivet.base.thread import in_thread
from trivet.build.caller import LARGEST, Ask, Line, NoAnswer, Reply
from trivet.build.error import BuildError
from trivet.build.origin import LAYOUT, LOCAL
from trivet.client.schema_build import BuildRequest
from trivet.oci import reference as references
from trivet.registry.auth import Credentials

SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CHECK, AGENT = "/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"
ACCOUNT, OUTPUT = "/moby.filesync.v1.Auth/Credentials", "/moby.filesync.v1.FileSend/DiffCopy"
EXPORTER = "buildkit-attachable-exporter-id"  # which of several outputs
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
HUB = "registry-1.docker.io"  # by this name clients look for what `docker login` without a name has stored


class SessionCaller:
    """A client that can be asked for what a request names. Spools into `spool`."""

    def __init__(self, channel: Channel, spool: Path, wish: BuildRequest) -> None:
        self.channel = channel
        self._spool = spool
        self._wish = wish
        self.stored: store.Known | None = None  # the manifest of a cache that was put into a directory
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
        cache = name.removeprefix("cache:")
        if what == Ask.OUTPUT and cache != name:
            return await self._line(self._store(f"local:{self._wish.cache_to[int(cache)].place}"))
        if what == Ask.CONTEXT and cache != name:
            place, _, digest = self._wish.cache_from[int(cache)].place.rpartition("@")
            return await self._archive(lambda file: store.fetch(self.channel, f"local:{place}", digest, file))
        if what == Ask.OUTPUT:
            directory = self._wish.outputs[int(name)].kind == "local"
            talk = self._files if directory else _archive
            return await self._bridge(OUTPUT, {EXPORTER: [name]}, talk, "an output", Packet if directory else Bytes)
        local = self._wish.contexts.get(name, "")
        if what == Ask.CONTEXT and local.startswith(LOCAL):
            return await self._archive(lambda file: self._directory(local.removeprefix(LOCAL), file))
        if what == Ask.CONTEXT and local.startswith(LAYOUT):
            place, _, digest = local.removeprefix(LAYOUT).partition("@")
            key = f"oci:{place.partition(':')[0]}"
            return await self._archive(lambda file: store.fetch(self.channel, key, digest, file))
        raise NoAnswer(what, name)

    async def _directory(self, name: str, file: BinaryIO) -> None:
        """Write one of the client's directories, as a tar."""
        receiver = sync.Receiver(file)
        await receiver.directory(self.channel, name, {})
        await in_thread(receiver.finish)

    def _store(self, place: str) -> Talk:
        """Take a layout's tar, and put what it holds into one of the client's directories."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reply = Reply()
            try:
                with spooled(self._spool) as file:
                    while data := await reader.read(1 << 20):
                        await in_thread(file.write, data)
                    file.seek(0)
                    self.stored = await store.put(self.channel, place, file)
            except TrivetError as error:
                reply = Reply(error=error.message)
            writer.write(msgspec.json.encode(reply) + b"\n")

        return talk

    async def _archive(self, write: Callable[[BinaryIO], Coroutine[Any, Any, None]]) -> tuple[Line, Reply]:
        """Give what `write` writes to a file."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with undo:
                while data := await in_thread(file.read, 1 << 20):
                    writer.write(data)
                    await writer.drain()

        with ExitStack() as undo:
            file = undo.enter_context(spooled(self._spool))
            await write(file)
            file.seek(0)
            undo = undo.pop_all()
        return await self._line(talk)

    def close(self) -> None:
        """End what is still being said."""
        for task in self._tasks:
            task.cancel()

    async def _bridge(
        self, method: str, metadata: dict[str, list[str]], talk: Any, what: str, message: Any = Bytes
    ) -> tuple[Line, Reply]:
        async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with self.channel.conversation(method, message, message, what, metadata) as stream:
                    await talk(stream, reader, writer)
            except (TrivetError, OSError) as error:
                words = error.message if isinstance(error, TrivetError) else str(error)
                writer.write(msgspec.json.encode(Reply(error=words)) + b"\n" if talk is not _agent else b"")
            else:
                writer.write(b"{}\n" if talk is not _agent else b"")

        return await self._line(work)

    async def _line(self, talk: Talk) -> tuple[Line, Reply]:
        """Give one end of a connection, at whose other end somebody talks."""
        ours, theirs = socket.socketpair()
        near = await asyncio.open_unix_connection(sock=ours)
        reader, writer = await asyncio.open_unix_connection(sock=theirs)

        async def work() -> None:
            try:
                await talk(reader, writer)
            except OSError:
                pass  # who asked has gone
            finally:
                writer.close()

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
    await pour(reader, stream)
    await stream.end()
    while await stream.recv_message() is not None:
        pass


async def _agent(stream: Stream[Bytes, Bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await carry(stream, reader, writer, stream.end)
