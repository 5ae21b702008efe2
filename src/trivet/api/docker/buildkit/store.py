"""OCI layouts in a client's directories, read and written blob by blob, as containerd's content API has it.

The builder takes and gives such a layout as a tar.
"""

from __future__ import annotations

import io
import tarfile
from typing import Any, BinaryIO

import msgspec

from trivet.api.docker.buildkit.channel import Channel, Refused
from trivet.api.docker.buildkit.store_message import Action, Piece, Read, Write, Written
from trivet.base.thread import in_thread
from trivet.build.error import BuildError
from trivet.oci import layout

SERVICE = "/containerd.services.content.v1.Content"
STORE = "buildkit-attachable-store-id"  # which of the client's directories
PIECE = 1 << 19
LIMIT = 4 << 20  # bytes of a manifest
MOST = 10_000  # blobs


class Known(msgspec.Struct, frozen=True, rename="camel"):
    """A descriptor, as manifests have it."""

    digest: str
    size: int = -1
    media_type: str = ""


class _Parts(msgspec.Struct, frozen=True):
    """What a manifest or an index refers to; of other documents nothing."""

    manifests: list[Known] = []
    layers: list[Known] = []
    config: Known | None = None


async def fetch(channel: Channel, store: str, top: str, file: BinaryIO) -> None:
    """Write the layout of what `top` (a digest) refers to, as a tar. Raises `BuildError`."""
    raw = bytearray()
    async for piece in _read(channel, store, top):
        raw += piece
        if len(raw) > LIMIT:
            raise BuildError(f"{top} is larger than a manifest may be")
    waiting, seen = [Known(digest=top, size=len(raw))], set[str]()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, layout.MARKER, layout.MARKER_CONTENT)
        kind = str(msgspec.json.decode(bytes(raw), type=dict[str, Any]).get("mediaType", ""))
        index = {"schemaVersion": 2, "manifests": [{"mediaType": kind, "digest": top, "size": len(raw)}]}
        _add(archive, layout.INDEX, msgspec.json.encode(index))
        while waiting:
            each = waiting.pop()
            if each.digest in seen:
                continue
            seen.add(each.digest)
            if len(seen) > MOST or each.size < 0:
                raise BuildError(f"{top} refers to more than {MOST} blobs, or to one of no size")
            waiting += await _blob(channel, store, each, archive)


async def _blob(channel: Channel, store: str, each: Known, archive: tarfile.TarFile) -> list[Known]:
    """Add a blob to a tar; list what it refers to."""
    info = tarfile.TarInfo(str(layout.blob(each.digest)))
    info.size, got, start = each.size, 0, bytearray()
    archive.addfile(info)  # without a file only the head is written; what follows is ours to write
    file: Any = archive.fileobj
    async for piece in _read(channel, store, each.digest):
        got += len(piece)
        if got > each.size:
            break
        if got <= LIMIT:
            start += piece
        await in_thread(file.write, piece)
    if got != each.size:
        raise BuildError(f"{each.digest} has {got} bytes in the client's store, not {each.size}")
    rest = -got % tarfile.BLOCKSIZE
    await in_thread(file.write, bytes(rest))
    archive.offset += got + rest
    try:
        parts = msgspec.json.decode(bytes(start), type=_Parts) if got <= LIMIT else _Parts()
    except msgspec.DecodeError:
        return []  # a layer
    return [*parts.manifests, *parts.layers, *([parts.config] if parts.config else [])]


async def _read(channel: Channel, store: str, digest: str) -> Any:
    what = f"{digest} of {store}"
    async with channel.conversation(f"{SERVICE}/Read", Read, Piece, what, {STORE: [store]}) as stream:
        await stream.send_message(Read(digest), end=True)
        while (piece := await stream.recv_message()) is not None:
            yield piece.data


async def put(channel: Channel, store: str, file: BinaryIO) -> Known:
    """Write the blobs of a layout that a tar holds; return the first descriptor of its index. Raises `BuildError`."""
    top: Known | None = None
    with tarfile.open(fileobj=file) as archive:
        for info in archive:
            content = archive.extractfile(info)
            if content is None:
                continue
            if info.name == layout.INDEX:
                top = msgspec.json.decode(content.read(LIMIT), type=_Parts).manifests[0]
            elif info.name.startswith(f"{layout.BLOBS}/"):
                await _write(channel, store, ":".join(info.name.split("/")[1:]), info.size, content)
    if top is None:
        raise BuildError("a layout without an index")
    return top


async def _write(channel: Channel, store: str, digest: str, size: int, content: Any) -> None:
    what, first = f"{digest} of {store}", Write(Action.WRITE, digest, size, digest)
    try:
        async with channel.conversation(f"{SERVICE}/Write", Write, Written, what, {STORE: [store]}) as stream:
            offset = 0
            while data := await in_thread(content.read, PIECE):
                first.offset, first.data = offset, data
                await stream.send_message(first)
                await stream.recv_message()
                offset += len(data)
            await stream.send_message(Write(Action.COMMIT, digest, size, digest, offset), end=True)
            while await stream.recv_message() is not None:
                pass
    except Refused as error:
        if "already exists" not in error.message:
            raise


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
