"""RUN --mount=type=secret and ssh: shown while a step runs, from memory, and nowhere afterwards.

MEMORY/trivet-<engine>/<build>/   on /dev/shm, so that no disk ever sees it; removed after the step, and by
                                  `sweep` after a crash
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

from trivet.base.error import TrivetError
from trivet.base.thread import in_thread
from trivet.build.caller import Ask, Caller, Line, NoAnswer
from trivet.build.error import BuildError
from trivet.build.mount import RunMount

MEMORY = Path("/dev/shm")
PIECE = 64 << 10


class Offered:
    """What one engine's builds are shown of their callers' secrets."""

    def __init__(self, run: Path) -> None:
        """`run` tells engines apart."""
        name = f"trivet-{hashlib.sha256(os.fsencode(run)).hexdigest()[:12]}"
        self.directory = (MEMORY if MEMORY.is_dir() else run) / name

    def sweep(self) -> None:
        """Remove what killed builds have left."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def place(self, undo: AsyncExitStack) -> Path:
        """Make a path for one file."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        directory = self.directory / secrets.token_hex(8)
        directory.mkdir(mode=0o700)
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        return directory / "s"


async def secret_of(caller: Caller, mount: RunMount, offered: list[str]) -> bytes | None:
    """Get a mount's secret; None if there is none and it isn't required."""
    if not await caller.offers(Ask.SECRET, mount.id, offered):
        if mount.required:
            raise BuildError(f"secret {mount.id} is required", hint=f"give it: --secret id={mount.id},src=FILE")
        return None
    return await caller.secret(mount.id)


def write_secret(path: Path, content: bytes, mount: RunMount) -> None:
    """Make the file that a step is shown."""
    with path.open("xb") as file:
        os.fchmod(file.fileno(), mount.mode)
        os.fchown(file.fileno(), mount.uid, mount.gid)
        file.write(content)


async def agent_of(caller: Caller, mount: RunMount, offered: list[str], path: Path, undo: AsyncExitStack) -> bool:
    """Listen where a step finds the caller's SSH agent; False if none is offered and it isn't required."""
    if not await caller.offers(Ask.SSH, mount.id, offered):
        if mount.required:
            hint = "give it: --ssh default" if mount.id == "default" else f"give it: --ssh {mount.id}=SOCKET"
            raise BuildError(f"ssh agent {mount.id} is required", hint=hint)
        return False
    server = await asyncio.start_unix_server(_Relay(caller, mount.id).serve, path)
    undo.push_async_callback(server.wait_closed)
    undo.callback(server.close)
    await in_thread(_hand_over, path, mount)
    return True


def _hand_over(path: Path, mount: RunMount) -> None:
    path.chmod(mount.mode)
    os.chown(path, mount.uid, mount.gid)


class _Relay:
    """Carries what a step says to the caller's agent, and back."""

    def __init__(self, caller: Caller, name: str) -> None:
        self._caller = caller
        self._name = name

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the step."""
        try:
            line, _ = await self._caller.ask(Ask.SSH, self._name)
        except (NoAnswer, TrivetError):
            writer.close()
            return
        await relay(line, reader, writer)


async def relay(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until either side hangs up."""
    ways = [
        asyncio.create_task(_carry(line.reader, writer)),
        asyncio.create_task(_carry(reader, line.writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        writer.close()
        line.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
