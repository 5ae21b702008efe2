"""A client's end of a BuildKit session, written with a library that isn't ours, which can be made to lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from trivet.api.docker.buildkit.channel import Codec
from trivet.api.docker.buildkit.message import Kind, Packet, Stat

FILES = "/moby.filesync.v1.FileSync/DiffCopy"
Talk = Callable[[Stream[Any, Any], str], Coroutine[Any, Any, None]]


class Client:
    """Answers what the engine asks for: directories by name, each told by a function."""

    def __init__(self, directories: dict[str, Talk]) -> None:
        self._directories = directories

    def __mapping__(self) -> dict[str, Handler]:
        """Tell grpclib what can be asked."""
        return {FILES: Handler(self._files, Cardinality.STREAM_STREAM, Packet, Packet)}

    async def _files(self, stream: Stream[Any, Any]) -> None:
        assert stream.metadata is not None
        name = str(stream.metadata["dir-name"])
        if name not in self._directories:
            raise GRPCError(Status.NOT_FOUND, f"no access allowed to dir {name!r}")
        await self._directories[name](stream, str(stream.metadata.get("followpaths", "")))


def directory(files: dict[str, bytes]) -> Talk:
    """Tell of a few files, and give them."""

    async def talk(stream: Stream[Any, Any], wanted: str) -> None:
        chosen = {name: content for name, content in files.items() if not wanted or name == wanted}
        names = sorted(chosen)
        for name in names:
            await stream.send_message(Packet(kind=Kind.STAT, stat=Stat(path=name, mode=0o644, size=len(chosen[name]))))
        await stream.send_message(Packet(kind=Kind.STAT))
        while (packet := await stream.recv_message()) is not None and packet.kind != Kind.END:
            await stream.send_message(Packet(kind=Kind.DATA, id=packet.id, data=chosen[names[packet.id]]))
            await stream.send_message(Packet(kind=Kind.DATA, id=packet.id))
        await stream.send_message(Packet(kind=Kind.END))

    return talk


@asynccontextmanager
async def session(path: str, key: str, client: Client) -> AsyncIterator[None]:
    """Open a session at an engine's socket, and answer on it while the block runs."""
    reader, writer = await asyncio.open_unix_connection(path)
    head = "POST /session HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    writer.write(f"{head}X-Docker-Expose-Session-Uuid: {key}\r\nContent-Length: 0\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    protocol = Server([client], codec=Codec())._protocol_factory()
    writer.transport.set_protocol(protocol)
    protocol.connection_made(writer.transport)
    if early := bytes(reader._buffer):  # type: ignore[attr-defined]
        protocol.data_received(early)
    try:
        yield
    finally:
        writer.transport.close()
