"""Dying at a chosen step, for tests: each change that an engine makes to the world is a step, and steps have numbers.

`TRIVET_FAULT` names a file. While it exists, steps are counted from 1 and told in FILE.log, a line each; before the
one whose number it holds (0: none) the engine kills itself, as `kill -9` would. Python tells its own changes (audit
events); those it doesn't know of, records and mounts, are told by `sys.audit` where they are made.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

VARIABLE = "TRIVET_FAULT"
STEPS = frozenset(
    "os.chmod os.chown os.link os.mkdir os.posix_spawn os.remove os.rename os.rmdir os.setxattr os.symlink os.truncate"
    " os.utime socket.bind socket.sendmsg socket.sendto subprocess.Popen trivet.commit trivet.mount".split()
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Count:
    """Counts the steps while the file exists."""

    def __init__(self, file: Path) -> None:
        self._file = os.fspath(file)
        self._log = os.open(f"{file}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._done = 0

    def __call__(self, event: str, values: tuple[Any, ...]) -> None:
        """Take an audit event (PEP 578)."""
        if event not in STEPS and not (event == "open" and isinstance(values[2], int) and values[2] & _WRITING):
            return
        wanted = self._wanted()
        if wanted < 0:
            self._done = 0
            return
        self._done += 1
        os.write(self._log, f"{self._done} {event} {values[:2]!r}\n"[:500].encode(errors="replace"))
        if self._done == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    def _wanted(self) -> int:
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        try:
            return int(os.read(descriptor, 20) or b"0")
        finally:
            os.close(descriptor)


def arm() -> None:
    """Count from now on, if the environment asks for it."""
    if VARIABLE in os.environ:
        sys.addaudithook(Count(Path(os.environ[VARIABLE])))
