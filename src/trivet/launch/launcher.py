"""The launcher as a process: a sealed copy of it, its plan and its report.

It runs from a sealed memfd, so that nothing it starts can overwrite it (CVE-2019-5736), through
`posix_spawn`, whose cost does not grow with this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from trivet.base.error import Unavailable

BINARY = Path(__file__).with_name("bin") / "trivet-launcher"
PLAN_FD = 3
REPORT_FD = 4
MOUNTS_FD = 5
FIRST_FREE_FD = 160  # ours are moved above the numbers the launcher expects, preserved ones included
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

_lock = threading.Lock()
_launcher: int | None = None


def launcher_descriptor() -> int:
    """Open the launcher as a sealed memfd, once per process."""
    global _launcher
    with _lock:
        if _launcher is None:
            _launcher = _seal(BINARY)
        return _launcher


@cache
def launcher_key() -> str:
    """Name the launcher by its content: a monitor that was told the same key is the same program."""
    from hashlib import sha256  # takes a millisecond, which only an engine needs

    return sha256(Path(f"/proc/self/fd/{launcher_descriptor()}").read_bytes()).hexdigest()[:32]


def _seal(binary: Path) -> int:
    """Copy a program into a memfd nobody can write to any more, and open that for reading only."""
    try:
        content = binary.read_bytes()
    except FileNotFoundError as error:
        raise Unavailable(f"the launcher {binary} has not been built", hint="make") from error
    writable = os.memfd_create("trivet-launcher", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write_all(writable, content)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, seals)
        # A descriptor open for writing would make execve fail with ETXTBSY.
        return move_up(os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC))
    finally:
        os.close(writable)


def move_up(descriptor: int) -> int:
    """Replace a descriptor by one out of the way of the launcher's."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD)
    os.close(descriptor)
    return moved


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


_children: set[int] = set()
_FEW, _PAUSE = 64, 1.0  # asking after each of thousands takes longer than a start
_reaped = 0.0


def reap() -> int:
    """Collect launchers of ours that have ended, without blocking; the number still running.

    Monitors live as long as their instances: call this now and then. Never touches other children.
    """
    with _lock:
        for pid in list(_children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            _children.discard(pid)
        return len(_children)


def reap_sometimes() -> None:
    """Do what `reap` does, but of many only once in a second."""
    global _reaped
    now = time.monotonic()
    if len(_children) < _FEW or now - _reaped > _PAUSE:
        _reaped = now
        reap()


def adopt(pid: int) -> None:
    """Leave a launcher that lives on to `reap`."""
    with _lock:
        _children.add(pid)


def start(plan: bytes, report: int, actions: list[tuple[Any, ...]], **environment: str) -> int:
    """Spawn the launcher with a plan, its report pipe, further file actions and variables; its pid."""
    launcher = launcher_descriptor()
    memory = move_up(os.memfd_create("trivet-plan", os.MFD_CLOEXEC))
    try:
        _write_all(memory, plan)
        actions = [
            *actions,
            (os.POSIX_SPAWN_DUP2, memory, PLAN_FD),
            (os.POSIX_SPAWN_DUP2, report, REPORT_FD),
        ]
        return os.posix_spawn(
            f"/proc/self/fd/{launcher}",
            ["trivet-launcher"],
            ENVIRONMENT | environment,
            file_actions=actions,
            setsigmask=(),
        )
    finally:
        os.close(memory)


def pipe() -> tuple[int, int]:
    """Make a pipe whose descriptors are out of the way of the launcher's."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    return move_up(reading), move_up(writing)


def keep(stack: contextlib.ExitStack, descriptor: int) -> int:
    """Close a descriptor with the stack."""
    stack.callback(os.close, descriptor)
    return descriptor


def above(stack: contextlib.ExitStack, descriptor: int) -> int:
    """Duplicate a caller's descriptor out of the way of the numbers the launcher expects."""
    return keep(stack, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD))
