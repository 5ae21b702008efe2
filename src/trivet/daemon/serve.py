"""`trivetd`: start, serve, and on SIGTERM go away without touching what runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from aiohttp import web

from trivet.api.docker.server import Runner
from trivet.base.error import AlreadyExists, Denied, TrivetError, Unavailable
from trivet.daemon import fault, memory
from trivet.daemon.settings import Settings, parse
from trivet.daemon.wiring import uninstall, wire
from trivet.launch import feature

log = logging.getLogger("trivetd")

BACKLOG = 4096  # clients that wait to be let in: one more is refused, as connecting doesn't wait everywhere (unix(7))
WORKERS = 64  # blocking driver calls at once; a VM's start takes seconds and must not hold the others up


def main(arguments: list[str] | None = None) -> int:
    """Run the engine until SIGTERM or SIGINT; returns the exit status."""
    settings = parse(arguments)
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    os.umask(0o077)
    memory.prepare()
    fault.arm()
    try:
        if not settings.uninstall:
            feature.require()
        with _directories(settings), contextlib.suppress(KeyboardInterrupt):
            if settings.uninstall:
                uninstall(settings)
            else:
                asyncio.run(_serve(settings))
    except TrivetError as error:
        print(f"trivetd: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _directories(settings: Settings) -> Iterator[None]:
    """Make root and run directory, and hold the root against a second engine."""
    try:
        settings.root.mkdir(parents=True, exist_ok=True, mode=0o710)
        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
        descriptor = os.open(settings.root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise Denied(f"cannot use {error.filename}: permission denied", hint="run trivetd as root") from error
    except OSError as error:
        raise Unavailable(f"cannot use {error.filename}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyExists(
            f"another engine uses {settings.root}", hint="choose another --root, or stop that engine"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


async def _serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(WORKERS, thread_name_prefix="work"))
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with AsyncExitStack() as undo:
        doors = await undo.enter_async_context(wire(settings))
        await _open(web.AppRunner(doors.native, access_log=None, shutdown_timeout=1.0), settings.listen, undo)
        if settings.docker_listen:
            await _open(Runner(doors.docker, access_log=None, shutdown_timeout=1.0), settings.docker_listen, undo)
        gc.collect()
        gc.freeze()  # what is there now stays: looking through it for rubbish takes longer than starting a container
        undo.callback(asyncio.create_task(memory.tidy()).cancel)
        await ended.wait()
        log.info("ending; what runs goes on")


async def _open(runner: web.AppRunner, path: Path, undo: AsyncExitStack) -> None:
    """Serve an application on a socket until the stack is unwound."""
    await runner.setup()
    undo.push_async_callback(runner.cleanup)
    listener = _listen(path)
    undo.callback(path.unlink, missing_ok=True)
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    log.info("listening on unix://%s", path)


def _listen(path: Path) -> socket.socket:
    """Bind the socket (mode 0660) under a private name and move it into place: there is no moment without one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(fresh))
        fresh.chmod(0o660)
        listener.listen(BACKLOG)
        fresh.rename(path)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener
