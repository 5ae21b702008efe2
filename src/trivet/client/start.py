"""Start the engine by itself, so that a newcomer never meets a daemon.

Only at the default address. The lock file beside the socket makes two commands at once start one
engine; whoever waited for the lock finds it answering.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.base.error import Denied, NotFound, Unavailable
from trivet.client.connection import connect, exchange
from trivet.client.problem import EngineGone

PATIENCE = 30.0  # seconds until the first answer
LAST_LINES = 5

Notify = Callable[[str], None]


class EngineNotStarted(Unavailable):
    """The engine ended, or didn't answer, before it was ready."""


def start_engine(address: str | Path, notify: Notify = lambda text: None) -> None:
    """Start `trivetd` detached and wait until it answers; `notify` hears of it once that takes over a second.

    Raises `EngineNotStarted` with the last lines of its log, `NotFound` without the program, `Denied` without rights.
    """
    socket_path = Path(address)
    try:
        socket_path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        with _locked(socket_path.with_name("start.lock")):
            if not answers(socket_path):
                _start(socket_path, notify)
    except PermissionError as error:
        hint = "run it as root, or choose another engine with --host"
        raise Denied(f"cannot start the engine: {error.filename}: permission denied", hint=hint) from error


def answers(socket_path: Path) -> bool:
    """Tell whether an engine answers a ping at `socket_path`."""
    try:
        with exchange(connect(str(socket_path)), "GET", "/v1/ping", {}, None) as response:
            return response.status == 200
    except (OSError, EngineGone):
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _start(socket_path: Path, notify: Notify) -> None:
    log = socket_path.with_name("trivetd.log")
    with log.open("ab") as output:
        begin = output.tell()
        engine = subprocess.Popen(
            [_program(), "--listen", f"unix://{socket_path}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )
    started = time.monotonic()
    told = False
    while not answers(socket_path):
        waited = time.monotonic() - started
        if engine.poll() is not None:
            raise _failure(f"the engine ended with status {engine.returncode} before it was ready", log, begin)
        if waited > PATIENCE:
            engine.terminate()
            raise _failure(f"the engine did not answer within {PATIENCE:.0f} s", log, begin)
        if waited > 1 and not told:
            notify("starting the engine ...")
            told = True
        time.sleep(0.02)
    engine.returncode = 0  # detached on purpose: no ResourceWarning about a running child


def _program() -> str:
    beside = Path(sys.executable).with_name("trivetd")
    found = str(beside) if beside.exists() else shutil.which("trivetd")
    if found is None:
        raise NotFound("cannot start the engine: trivetd is not installed beside trivet or in PATH")
    return found


def _failure(sentence: str, log: Path, begin: int) -> EngineNotStarted:
    with log.open("rb") as output:
        output.seek(begin)
        lines = output.read()[-4096:].decode(errors="replace").strip().splitlines()[-LAST_LINES:]
    tail = "".join(f"\n  {line}" for line in lines)
    return EngineNotStarted(f"{sentence}; its log says:{tail or ' nothing'}", hint=f"the whole log is {log}")
