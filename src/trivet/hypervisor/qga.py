"""The guest agent of distributions (qemu-guest-agent): JSON lines on a virtio-serial port.

One connection for each question: QEMU serves one client at a time, others wait their turn. What the guest says is
hostile: bounded in size, and never more than data.
"""

from __future__ import annotations

import base64
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import msgspec

from trivet.base.error import Conflict, Corrupt, Unavailable

_LIMIT = 80 << 20
_PATIENCE = 20.0
_BLOCK = 4 << 20
_MARK = b"\xff"


class AgentAbsent(Unavailable):
    """No guest agent answers."""

    def __init__(self, machine: str) -> None:
        super().__init__(
            f"no guest agent answers in machine {machine}",
            hint=f"it may still be booting, or lack the package qemu-guest-agent; see `trivet logs {machine}`",
        )


class AgentRefused(Conflict):
    """The guest agent understood, and said no."""

    def __init__(self, machine: str, command: str, reason: str) -> None:
        super().__init__(f"the guest agent of machine {machine} refused {command}: {reason[:200]}")


class _Fault(msgspec.Struct):
    desc: str = ""


class _Answer(msgspec.Struct):
    value: Any = msgspec.field(name="return", default=None)
    error: _Fault | None = None


class Qga:
    """The agent behind one machine's socket; `patience` is for its answer to one question."""

    def __init__(self, path: Path, machine: str, patience: float = _PATIENCE) -> None:
        self._path = path
        self._machine = machine
        self._patience = patience

    def ask(self, command: str, **arguments: object) -> Any:
        """Run one command and return its answer. Raises `AgentAbsent`, `AgentRefused`, `Corrupt`."""
        deadline = time.monotonic() + self._patience
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.settimeout(self._patience)
                connection.connect(str(self._path))
                self._synchronise(connection, deadline)
                request = {"execute": command, **({"arguments": arguments} if arguments else {})}
                connection.sendall(msgspec.json.encode(request) + b"\n")
                answer = self._receive(connection, deadline)
            except OSError as error:
                raise AgentAbsent(self._machine) from error
        if answer.error is not None:
            raise AgentRefused(self._machine, command, answer.error.desc)
        return answer.value

    def tell(self, command: str, **arguments: object) -> None:
        """Run one command that is not answered when it works, such as a shutdown."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.settimeout(self._patience)
                connection.connect(str(self._path))
                self._synchronise(connection, time.monotonic() + self._patience)
                connection.sendall(msgspec.json.encode({"execute": command, "arguments": arguments}) + b"\n")
            except OSError as error:
                raise AgentAbsent(self._machine) from error

    def answers(self) -> bool:
        """Tell whether there is an agent that works."""
        try:
            self.ask("guest-ping")
        except (AgentAbsent, AgentRefused, Corrupt):
            return False
        return True

    def read(self, path: str) -> Reader:
        """Open a file of the guest to be read, also while it grows."""
        return Reader(self, int(self.ask("guest-file-open", path=path, mode="r")))

    def write(self, path: str, data: bytes, *, more: bool = False) -> None:
        """Write to a file of the guest: at its end if there is `more`, else anew."""
        handle = int(self.ask("guest-file-open", path=path, mode="a" if more else "w"))
        try:
            for start in range(0, len(data), _BLOCK):
                text = base64.b64encode(data[start : start + _BLOCK]).decode()
                self.ask("guest-file-write", **{"handle": handle, "buf-b64": text})
        finally:
            self.ask("guest-file-close", handle=handle)

    def _synchronise(self, connection: socket.socket, deadline: float) -> None:
        """Make sure that the next answer is to our question, whatever was asked by somebody who went away."""
        number = secrets.randbits(31)
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        connection.sendall(_MARK + msgspec.json.encode(request) + b"\n")
        while self._receive(connection, deadline, marked=True).value != number:
            pass

    def _receive(self, connection: socket.socket, deadline: float, *, marked: bool = False) -> _Answer:
        data = bytearray()
        while b"\n" not in data or (marked and _MARK not in data):
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            received = connection.recv(1 << 20)
            if not received:
                raise AgentAbsent(self._machine)
            data += received
            if len(data) > _LIMIT:
                raise Corrupt(f"the guest agent of machine {self._machine} says too much at once")
        try:
            return msgspec.json.decode(bytes(data).rpartition(_MARK)[2] if marked else bytes(data), type=_Answer)
        except msgspec.DecodeError as error:
            raise Corrupt(f"the guest agent of machine {self._machine} cannot be understood: {error}") from error


class Reader:
    """An open file of the guest."""

    def __init__(self, agent: Qga, handle: int) -> None:
        self._agent = agent
        self._handle = handle

    def read(self) -> bytes:
        """Read the next part; empty where the file ends for now."""
        answer = self._agent.ask("guest-file-read", handle=self._handle, count=_BLOCK)
        try:
            return base64.b64decode(answer["buf-b64"]) if answer["count"] else b""
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"the guest agent cannot be understood: {error}") from error

    def close(self) -> None:
        """Close it."""
        self._agent.ask("guest-file-close", handle=self._handle)
