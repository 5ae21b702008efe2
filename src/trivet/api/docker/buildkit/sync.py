"""fsutil's protocol: a directory of the client's comes as a tar, a tar goes into one.

What was announced first decides where everything lies in the tar; so the contents of many files can come at once,
in any order, and each is written where it belongs. Nothing is made on the host under a name of the client's.
"""

from __future__ import annotations

import os
import stat as modes
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, BinaryIO

from grpclib.client import Stream
from grpclib.exceptions import ProtocolError

from trivet.api.docker.buildkit.channel import Channel, Metadata
from trivet.api.docker.buildkit.message import Kind, Packet, Stat
from trivet.build.error import BuildError

FILES = "/moby.filesync.v1.FileSync/DiffCopy"
MOST = 1_000_000  # files
AHEAD = 64  # files asked for at a time
BLOCK = tarfile.BLOCKSIZE
DIRECTORY, LINK = 1 << 31, 1 << 27
SPECIAL = (1 << 26) | (1 << 25) | (1 << 24) | (1 << 21) | (1 << 19)  # devices, pipes, sockets: not for a build
BITS = {1 << 23: modes.S_ISUID, 1 << 22: modes.S_ISGID, 1 << 20: modes.S_ISVTX}


class _File:
    """A file whose content is on its way: where it lies, and how much of it is there."""

    def __init__(self, stat: Stat, offset: int) -> None:
        self.stat = stat
        self.offset = offset
        self.got = 0


class Receiver:
    """Writes the parts of a tar; `file` may hold some already."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = file.seek(0, os.SEEK_END)

    async def directory(self, channel: Channel, name: str, wanted: Metadata) -> list[str]:
        """Receive one of the client's directories; list what came. Raises `BuildError`, OSError."""
        what = f"the directory {name}"
        metadata = {**wanted, "dir-name": [name]}
        async with channel.conversation(FILES, Packet, Packet, what, metadata) as stream:
            stats = await _stats(stream, what)
            files = {number: file for number, each in enumerate(stats) if (file := self._place(each))}
            await self._contents(stream, files, what)
            await stream.send_message(Packet(kind=Kind.END), end=True)
            while await stream.recv_message() is not None:
                pass
        return [each.path for each in stats]

    def add(self, name: str, content: bytes) -> None:
        """Add a file of our own."""
        offset = self._header(_info(Stat(path=name, mode=0o644, size=len(content))))
        os.pwrite(self._file.fileno(), content, offset)

    def finish(self) -> None:
        """End the tar."""
        os.pwrite(self._file.fileno(), bytes(2 * BLOCK), self._end)
        self._file.seek(0)

    def _place(self, stat: Stat) -> _File | None:
        """Give a file its place in the tar; return it if its content has to be asked for."""
        if stat.mode & SPECIAL:
            return None
        info = _info(stat)
        offset = self._header(info)
        return _File(stat, offset) if info.isreg() and stat.size else None

    def _header(self, info: tarfile.TarInfo) -> int:
        head = info.tobuf(tarfile.PAX_FORMAT)
        os.pwrite(self._file.fileno(), head, self._end)
        offset = self._end + len(head)
        self._end = offset + (info.size + BLOCK - 1) // BLOCK * BLOCK
        return offset

    async def _contents(self, stream: Stream[Any, Packet], files: dict[int, _File], what: str) -> None:
        waiting = iter(list(files))  # those that nobody has asked for yet
        for number in islice(waiting, AHEAD):
            await stream.send_message(Packet(kind=Kind.REQUEST, id=number))
        while files:
            packet = await _packet(stream, what)
            file = files.get(packet.id)
            if packet.kind != Kind.DATA or file is None:
                raise BuildError(f"{what}: the client sent what it was not asked for")
            if packet.data:
                if file.got + len(packet.data) > file.stat.size:
                    raise BuildError(f"{what}: {file.stat.path} grew while it was sent")
                os.pwrite(self._file.fileno(), packet.data, file.offset + file.got)
                file.got += len(packet.data)
                continue
            if file.got != file.stat.size:
                raise BuildError(f"{what}: {file.stat.path} shrank while it was sent")
            del files[packet.id]
            for number in islice(waiting, 1):
                await stream.send_message(Packet(kind=Kind.REQUEST, id=number))


async def _stats(stream: Stream[Any, Packet], what: str) -> list[Stat]:
    found: list[Stat] = []
    while True:
        packet = await _packet(stream, what)
        if packet.kind != Kind.STAT:
            raise BuildError(f"{what}: the client sent contents before it had listed its files")
        if packet.stat is None or not packet.stat.path:
            return found
        if len(found) >= MOST or packet.stat.size < 0:
            raise BuildError(f"{what} has more than {MOST} files, or one of no size")
        found.append(packet.stat)


async def _packet(stream: Stream[Any, Packet], what: str) -> Packet:
    packet = await stream.recv_message()
    if packet is None:
        with suppress(ProtocolError):
            await stream.end()
            await stream.recv_trailing_metadata()  # raises the client's own reason, if it tells one
        raise BuildError(f"{what}: the client ended in the middle")
    if packet.kind == Kind.ERROR:
        raise BuildError(f"{what}: {packet.data[:1000].decode(errors='replace')}")
    return packet


def _info(stat: Stat) -> tarfile.TarInfo:
    info = tarfile.TarInfo(stat.path)
    info.mode = stat.mode & 0o777 | sum(bit for mask, bit in BITS.items() if stat.mode & mask)
    info.uid, info.gid, info.mtime = stat.uid, stat.gid, stat.time // 10**9
    if stat.mode & DIRECTORY:
        info.type = tarfile.DIRTYPE
    elif stat.mode & LINK:
        info.type, info.linkname = tarfile.SYMTYPE, stat.link
    elif stat.link:
        info.type, info.linkname = tarfile.LNKTYPE, stat.link
    else:
        info.size = stat.size
    return info


async def send(stream: Stream[Any, Packet], file: BinaryIO) -> None:
    """Send a tar's files as a directory: list them, give what is asked for, until the client has all it wants."""
    with tarfile.open(fileobj=file) as archive:
        members = sorted(_members(archive), key=lambda each: each[0].split("/"))
        for path, info in members:
            await stream.send_message(Packet(kind=Kind.STAT, stat=_stat(path, info)))
        await stream.send_message(Packet(kind=Kind.STAT))
        while True:
            packet = await _packet(stream, "the output")
            if packet.kind == Kind.END:
                await stream.send_message(Packet(kind=Kind.END), end=True)
                return
            if packet.kind != Kind.REQUEST or not 0 <= packet.id < len(members):
                raise BuildError("the output: the client asked for what there is not")
            content = archive.extractfile(members[packet.id][1])
            while content and (piece := content.read(32 << 10)):
                await stream.send_message(Packet(kind=Kind.DATA, id=packet.id, data=piece))
            await stream.send_message(Packet(kind=Kind.DATA, id=packet.id))


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for info in archive:
        path = info.name.removeprefix("./").strip("/")
        if path and path != "." and (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            yield path, info


def _stat(path: str, info: tarfile.TarInfo) -> Stat:
    kind = DIRECTORY if info.isdir() else LINK if info.issym() else 0
    special = sum(mask for mask, bit in BITS.items() if info.mode & bit)
    return Stat(
        path=path,
        mode=info.mode & 0o777 | special | kind,
        uid=info.uid,
        gid=info.gid,
        size=info.size,
        time=int(info.mtime) * 10**9,
        link=info.linkname.removeprefix("./") if info.islnk() else info.linkname,
    )
