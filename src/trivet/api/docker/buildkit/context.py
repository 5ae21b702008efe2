"""What a build by a session works on: the client's directories, fetched as one tar, as the builder takes it."""

from __future__ import annotations

import os
import posixpath
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import msgspec

from trivet.api.docker.buildkit.channel import Channel, Refused
from trivet.api.docker.buildkit.message import Bytes
from trivet.api.docker.buildkit.sync import Receiver
from trivet.api.docker.buildkit.trace import DOCKERFILE
from trivet.base.thread import in_thread
from trivet.build.error import BuildError
from trivet.build.ignore import IGNORE_FILE, Ignore
from trivet.build.source import MAXIMUM
from trivet.client.schema import Progress
from trivet.client.schema_build import BuildRequest

Report = Callable[[Progress], None]
CONTEXT = "[internal] load build context"
UPLOADED, PULL = "http://buildkit-session/", "/moby.upload.v1.Upload/Pull"


async def fetch(channel: Channel, wish: BuildRequest, file: BinaryIO, spool: Path, report: Report) -> BuildRequest:
    """Write the client's context to `file`, with the Dockerfile under a name of its own; return the request for it.

    What the ignore file leaves out isn't sent at all. A context from elsewhere is left for the builder to fetch, a
    tar that the client has on its standard input is taken as it is. Raises `BuildError`, and OSError when the disk
    is full.
    """
    if wish.remote.startswith(UPLOADED):
        await _pull(channel, wish.remote, file)
        return msgspec.structs.replace(wish, remote="")
    if wish.remote:
        return await _beside(channel, wish, file, spool)
    path = wish.dockerfile
    begun = _begin(report, DOCKERFILE, f"from {path}")
    found = await _some(channel, "dockerfile", [path, path + IGNORE_FILE], spool)
    if path not in found:
        raise BuildError(f"failed to read dockerfile: {path} is not in the directory it is looked for in")
    ignored = found.get(path + IGNORE_FILE)
    if ignored is None:
        ignored = (await _some(channel, "context", [IGNORE_FILE], spool)).get(IGNORE_FILE, b"")
    begun()
    text = ignored.decode("utf-8", "replace")
    receiver = Receiver(file)
    if wish.call == "build":
        begun = _begin(report, CONTEXT, "from the client")
        patterns = Ignore.read(text, name=IGNORE_FILE).patterns
        await receiver.directory(channel, "context", {"exclude-patterns": patterns} if patterns else {})
        begun()
    name = f".dockerfile.{os.urandom(8).hex()}.{posixpath.basename(path)}"
    receiver.add(name, found[path])
    receiver.add(name + IGNORE_FILE, f"{text}\n{name}\n{name}{IGNORE_FILE}\n".encode())
    await in_thread(receiver.finish)
    return msgspec.structs.replace(wish, dockerfile=name, remote="")


async def _pull(channel: Channel, url: str, file: BinaryIO) -> None:
    """Write what the client reads from its standard input."""
    metadata = {"urlpath": [urlsplit(url).path], "urlhost": [urlsplit(url).netloc]}
    async with channel.conversation(PULL, Bytes, Bytes, "the context", metadata) as stream:
        await stream.end()
        while (piece := await stream.recv_message()) is not None:
            await in_thread(file.write, piece.data)


async def _beside(channel: Channel, wish: BuildRequest, file: BinaryIO, spool: Path) -> BuildRequest:
    """Write the Dockerfile that a client has for a context from elsewhere; by itself, it is in there."""
    path = wish.dockerfile
    try:
        found = await _some(channel, "dockerfile", [path], spool)
    except Refused:
        return wish
    if path not in found:
        raise BuildError(f"failed to read dockerfile: {path} is not in the directory it is looked for in")
    name = f".dockerfile.{os.urandom(8).hex()}.{posixpath.basename(path)}"
    receiver = Receiver(file)
    receiver.add(name, found[path])
    await in_thread(receiver.finish)
    return msgspec.structs.replace(wish, dockerfile=name)


def _begin(report: Report, step: str, title: str) -> Callable[[], None]:
    began = time.monotonic()
    report(Progress(id=step, status=title))
    return lambda: report(Progress(id=step, status=f"{title} · {time.monotonic() - began:.1f} s"))


async def _some(channel: Channel, directory: str, paths: list[str], spool: Path) -> dict[str, bytes]:
    """Read a few small files of a client's directory; links among them are followed."""
    with tempfile.TemporaryFile(dir=spool) as unnamed:
        file = cast(BinaryIO, unnamed)
        receiver = Receiver(file)
        await receiver.directory(channel, directory, {"followpaths": paths})
        receiver.finish()
        found = {}
        with tarfile.open(fileobj=file) as archive:
            for path in paths:
                try:
                    content = archive.extractfile(path)
                except KeyError:
                    continue
                if content is not None:
                    found[path] = content.read(MAXIMUM + 1)
        return found
