"""The canary: everything of the host an attack may be after, made for it and for nothing else."""

from __future__ import annotations

import ctypes
import hashlib
import os
import pty
import secrets
import select
import shutil
import signal
import stat
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.gym.attack import Proof
from tests.gym.host import Host, child

_libc = ctypes.CDLL(None, use_errno=True)


class Canary:
    """Files, a process, sockets, shared memory and a terminal, each with a secret."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._undo = ExitStack()
        self.secret = secrets.token_hex(12)
        self.directory = directory
        self._host = host
        self._files()
        self._common()
        self._process()
        self._terminal()
        self._before = picture(directory)

    def words(self) -> dict[str, str]:
        """Name everything, for the words of an attack."""
        kind, handle = handle_of(self.directory / "secret")
        return {
            "dir": str(self.directory),
            "up": "../" * 24 + str(self.directory).lstrip("/"),
            "shared": str(self._shared),
            "script": str(self.directory / "script"),
            "copy": str(self.directory / "copy"),
            "pid": str(self._pid),
            "port": str(self._port),
            "shm": str(self._shm),
            "abstract": self._abstract,
            "type": str(kind),
            "handle": handle.hex(),
            "tty": self._tty,
            "memory": f"/dev/shm/{self._abstract}",
        }

    def proven(self, proof: Proof, output: str, code: int) -> bool:
        """Tell whether an attack has reached what it was after."""
        match proof:
            case Proof.SECRET:
                return self.secret in output
            case Proof.CHANGED:
                return self.changed()
            case Proof.KILLED:
                return self._running.poll() is not None
            case Proof.TYPED:
                return bool(select.select([self._master], [], [], 0)[0])
            case Proof.SAID:
                return code == 0

    def changed(self) -> bool:
        """Tell whether any file is not what it was."""
        return picture(self.directory) != self._before

    def close(self) -> None:
        """Leave nothing."""
        self._undo.close()

    def _files(self) -> None:
        self.directory.mkdir(parents=True)
        (self.directory / "secret").write_text(f"{self.secret}\n")
        (self.directory / "file").write_text("untouched\n")
        (self.directory / "passwd").write_text("root:x:0:0::/:/bin/sh\neve:x:0:0::/:/bin/sh\n")
        script = self.directory / "script"
        script.write_text(f"#!/bin/sh\necho owned > {self.directory}/owned\n")
        script.chmod(0o755)
        copy = self.directory / "copy"
        copy.write_bytes(self._host.program.read_bytes())
        copy.chmod(0o755)
        (self.directory / "pts").mkdir()
        (self.directory / "target").mkdir()

    def _common(self) -> None:
        """Make where races take place: a directory, and links to one of the host's that take its place now and then."""
        self._shared = self.directory.with_name(f"{self.directory.name}-shared")
        self._undo.callback(shutil.rmtree, self._shared, True)
        (self._shared / "a").mkdir(parents=True)
        (self._shared / "link").symlink_to(self.directory / "target")
        (self._shared / "dots").symlink_to("../" * 24 + str(self.directory / "target").lstrip("/"))

    def _process(self) -> None:
        self._abstract = f"gym-{secrets.token_hex(6)}"
        words = self._host.enter(self.directory / "copy", "canary", self._abstract)
        self._running = subprocess.Popen(
            words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env={"SECRET": self.secret, "PATH": os.environ["PATH"]},
        )  # fmt: skip
        self._undo.callback(self._end)
        assert self._running.stdout
        self._pid, self._port, self._shm = (int(word) for word in self._running.stdout.readline().split())
        self._outer = child(self._running.pid)

    def _end(self) -> None:
        if self._running.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self._outer, signal.SIGKILL)
        self._running.communicate(timeout=20)

    def _terminal(self) -> None:
        self._master, slave = pty.openpty()
        self._tty = os.ttyname(slave)
        self._undo.callback(os.close, self._master)
        self._undo.callback(os.close, slave)


def picture(directory: Path) -> dict[str, tuple[int, int, str]]:
    """Take everything of a tree that an attack would change."""
    found: dict[str, tuple[int, int, str]] = {}
    for path in sorted(directory.rglob("*")):
        about = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(about.st_mode) else ""
        found[str(path.relative_to(directory))] = (about.st_mode, about.st_uid, content)
    return found


def handle_of(path: Path) -> tuple[int, bytes]:
    """Ask for a file's handle: its type and its bytes (name_to_handle_at(2))."""
    buffer = ctypes.create_string_buffer(8 + 128)
    ctypes.c_uint.from_buffer(buffer, 0).value = 128
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(-100, os.fsencode(path), buffer, ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at", str(path))
    length = ctypes.c_uint.from_buffer(buffer, 0).value
    return ctypes.c_int.from_buffer(buffer, 4).value, buffer.raw[8 : 8 + length]
