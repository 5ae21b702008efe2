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

import msgspec

from trivet.api.docker.buildkit.channel import Channel
from trivet.api.docker.buildkit.sync import Receiver
from trivet.base.thread import in_thread
from trivet.build.error import BuildError
from trivet.build.ignore import IGNORE_FILE, Ignore
from trivet.build.source import MAXIMUM
from trivet.client.schema import Progress
from trivet.client.schema_build import BuildRequest

Report = Callable[[Progress], None]
DOCKERFILE, CONTEXT = "[internal] load build definition", "[internal] load build context"


async def fetch(channel: Channel, wish: BuildRequest, file: BinaryIO, spool: Path, report: Report) -> BuildRequest:
    """Write the client's context to `file`, with the Dockerfile under a name of its own; return the request for it.

    What the ignore file leaves out isn't sent at all. Raises `BuildError`, and OSError when the disk is full.
    """
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
    begun = _begin(report, CONTEXT, "from the client")
    receiver = Receiver(file)
    patterns = Ignore.read(text, name=IGNORE_FILE).patterns
    await receiver.directory(channel, "context", {"exclude-patterns": patterns} if patterns else {})
    name = f".dockerfile.{os.urandom(8).hex()}.{posixpath.basename(path)}"
    receiver.add(name, found[path])
    receiver.add(name + IGNORE_FILE, f"{text}\n{name}\n{name}{IGNORE_FILE}\n".encode())
    await in_thread(receiver.finish)
    begun()
    return msgspec.structs.replace(wish, dockerfile=name, remote="")


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
