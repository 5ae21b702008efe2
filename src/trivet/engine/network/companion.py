"""A program beside the engine, which outlives it: asked by a socket, started when it is needed, replaced when it ends.

    tell ──▶ connect, or start ──▶ ask ──▶ {"version": …, "problems": {…}}
                                    │ another version, no answer: replaced
    watch: it ended, and not by us ─┴──▶ `revive`, after a pause

What it does follows from what it is told, so one of an older trivet or one that was killed is replaced at any time.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from trivet.base.error import Unavailable

PATIENCE = 10.0  # seconds for a start, and for an answer
_PAUSE, _SOON, _STEADY = 1.0, 0.1, 10.0  # before another is started; when the last one lived for that long
_LARGEST = 1 << 20
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from {name} import main; main()"


class Companion:
    """One such program: `module` has its `main`. Its user holds `lock` when calling anything but `__init__`.

    `arguments` precede the version on its command line; it writes a byte to stdout when it can be asked at `control`.
    With `overlap` a new one is there before the one of another version goes.
    """

    def __init__(
        self,
        title: str,
        module: ModuleType,
        arguments: tuple[str, ...],
        control: Path,
        revive: Callable[[], None],
        *,
        overlap: bool = False,
    ) -> None:
        assert module.__file__
        self.title, self.control, self.log = title, control, control.with_suffix(".log")
        self.lock = threading.Lock()
        self.ended = False
        self.told = b""  # what the program that is there has understood
        source = Path(module.__file__).parent
        self.version = f"{zlib.crc32(b''.join(path.read_bytes() for path in sorted(source.glob('*.py')))):08x}"
        start = _START.format(name=module.__name__)
        self._command = [sys.executable, "-I", "-S", "-c", start, str(source.parents[1]), *arguments, self.version]
        self._revive, self._overlap = revive, overlap
        self._link: socket.socket | None = None
        self._handle = -1  # of the process behind the link

    def tell(self, message: bytes, *, needed: bool) -> dict[str, str]:
        """Say something to it; if it isn't there, start it or do nothing, as it is `needed`. Return problems by name.

        Raises `Unavailable`.
        """
        for _ in range(2):
            if not self.connect():
                if not needed:
                    return {}
                self._start()
            problems = self.ask(message)
            if problems is not None:
                return problems
        raise Unavailable(f"the {self.title} does not answer", hint=f"see {self.log}")

    def ask(self, message: bytes) -> dict[str, str] | None:
        """Say something to it if it is there; return problems by name, or None if it isn't, or must be replaced."""
        if not self.connect():
            return None
        assert self._link
        try:
            self._link.send(message)
            reply = json.loads(self._link.recv(_LARGEST) or b"{}")
        except (OSError, ValueError):
            reply = {}
        if reply.get("version") == self.version:
            problems: dict[str, str] = reply["problems"]
            return problems
        if reply and self._overlap:
            self._start()
            return self.ask(message)
        self._kill()
        return None

    def connect(self) -> bool:
        """Tell whether it is there."""
        if self._link:
            return True
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        link.settimeout(PATIENCE)
        try:
            link.connect(str(self.control))
        except OSError:
            link.close()
            return False
        pid = _peer(link)
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:  # it took us with its last breath
            link.close()
            return False
        self._link = link
        watching = threading.Thread(target=self._watch, args=(os.dup(self._handle), pid, link), name=self.title)
        watching.daemon = True
        watching.start()
        return True

    def stop(self) -> None:
        """End it for good."""
        self.ended = True
        if self.connect():
            self._kill()
        self.control.unlink(missing_ok=True)

    def leave(self) -> None:
        """Let it go on without us."""
        self.ended = True
        self._hang_up()

    def _start(self) -> None:
        """Start one in place of the one we are connected to, if any. Raises `Unavailable`."""
        with self.log.open("wb") as errors:
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd="/", start_new_session=True,
            )  # fmt: skip
        assert child.stdout
        ready = select.select([child.stdout], [], [], PATIENCE)[0] and child.stdout.read(1)
        child.stdout.close()
        if not ready:
            child.kill()
            child.wait()
            raise Unavailable(f"cannot start the {self.title}", hint=f"see {self.log}")
        child.returncode = 0  # `_watch` collects it
        if self._link:
            self._kill()

    def _kill(self) -> None:
        """End it, and wait until it has: until then its socket takes connections that nobody will answer."""
        with suppress(OSError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        _ended(self._handle, PATIENCE)
        self._hang_up()

    def _hang_up(self) -> None:
        self.told = b""
        if self._link:
            self._link.close()
            os.close(self._handle)
            self._link = None

    def _watch(self, handle: int, pid: int, link: socket.socket) -> None:
        """Wait for its end; when that was not meant, have another started."""
        begun = time.monotonic()
        _ended(handle)
        os.close(handle)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        with self.lock:
            if self.ended or self._link is not link:
                return
            self._hang_up()
        time.sleep(_SOON if time.monotonic() - begun > _STEADY else _PAUSE)
        if not self.ended:
            with suppress(Exception):  # it is told in the log, and `system check` finds it
                self._revive()


def _ended(handle: int, patience: float | None = None) -> None:
    """Wait for the end of a process."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.poll(patience and patience * 1000)


def _peer(link: socket.socket) -> int:
    packed = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[0])
