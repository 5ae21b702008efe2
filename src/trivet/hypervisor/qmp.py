"""QMP: QEMU's own control protocol, JSON lines on a unix socket (qemu docs/interop/qmp-spec.rst).

Blocking and short-lived: connect, ask, close. QEMU serves one client at a time; another one waits its turn.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from trivet.base.error import Internal, Unavailable

LENT = "lent"
"""What tells descriptors that were lent for a while from those a machine has from its start."""
_PATIENCE = 10.0
_LINE_LIMIT = 1 << 20
_STEP = 0.002
_BOUND = 0.5


class QmpUnavailable(Unavailable):
    """QEMU's control socket doesn't answer."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"the machine's control socket {path} does not answer: {cause}")


class QmpRefused(Internal):
    """QEMU understood, and said no."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(f"machine refused {command}: {description}")
        self.description = description


class _Fault(msgspec.Struct):
    desc: str


class _Message(msgspec.Struct):
    """A greeting has `QMP`, a reply `return` or `error`, an event `event`."""

    greeting: Any = msgspec.field(name="QMP", default=None)
    value: Any = msgspec.field(name="return", default=None)
    error: _Fault | None = None
    event: str = ""
    id: Any = None


class Qmp:
    """One conversation with a running QEMU. Use as a context manager."""

    def __init__(self, path: Path, patience: float = _PATIENCE, connection: socket.socket | None = None) -> None:
        """Connect to `path`, or speak over a `connection` that is there already and is closed in the end."""
        self._path = path
        self._id = secrets.token_hex(4)
        self._deadline = time.monotonic() + patience
        self._socket = connection or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if connection is None:
                self._connect()
            self._lines = self._read_lines()
            self._next()
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def execute(self, command: str, **arguments: object) -> Any:
        """Run one command and return its answer. Raises `QmpRefused` and `QmpUnavailable`."""
        self._ask(command, arguments)
        return self._answer(command)

    def in_turn(self, *commands: tuple[str, dict[str, object]]) -> Generator[Any, None, None]:
        """Run commands one after the other, none of which QEMU has to be woken up for; their answers, when they come.

        All are begun at once. One that is refused raises when it is its turn; the others are carried out all the same,
        and have been when the iterator is closed.
        """
        for command, arguments in commands:
            self._ask(command, arguments)
        return self._answers([command for command, _ in commands])

    def _answers(self, left: list[str]) -> Generator[Any, None, None]:
        try:
            while left:
                yield self._answer(left.pop(0))
        finally:
            for command in left:
                with contextlib.suppress(QmpRefused):
                    self._answer(command)

    def _ask(self, command: str, arguments: dict[str, object]) -> None:
        request = {"execute": command, "id": self._id, **({"arguments": arguments} if arguments else {})}
        try:
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
        except OSError as error:
            raise QmpUnavailable(self._path, str(error)) from error

    def _answer(self, command: str) -> Any:
        # The answer to somebody who didn't wait for it is given to who comes next.
        while (message := self._next()).event or message.id != self._id:
            pass
        if message.error is not None:
            raise QmpRefused(command, message.error.desc)
        return message.value

    def give(self, name: str, descriptor: int) -> None:
        """Hand a descriptor over, to be named in the address `fd:name`."""
        request = msgspec.json.encode({"execute": "getfd", "id": self._id, "arguments": {"fdname": name}}) + b"\n"
        self._socket.settimeout(self._left())
        socket.send_fds(self._socket, [request], [descriptor])
        self._answer("getfd")

    def lend(self, descriptor: int) -> int:
        """Hand a descriptor over, to be opened as /dev/fdset/NUMBER, whose number this is (command add-fd)."""
        request = msgspec.json.encode({"execute": "add-fd", "id": self._id, "arguments": {"opaque": LENT}}) + b"\n"
        self._socket.settimeout(self._left())
        socket.send_fds(self._socket, [request], [descriptor])
        return int(self._answer("add-fd")["fdset-id"])

    def add(self, descriptor: int) -> int:
        """Hand a descriptor over for good, to be opened as `/dev/fdset/N`; the number."""
        self._socket.settimeout(self._left())
        socket.send_fds(
            self._socket, [msgspec.json.encode({"execute": "add-fd", "id": self._id}) + b"\n"], [descriptor]
        )
        return int(self._answer("add-fd")["fdset-id"])

    def add_file(self, path: Path | str, *, writable: bool = False) -> int:
        """Open a file, not through a link, and hand it over for good; the number."""
        descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return self.add(descriptor)
        finally:
            os.close(descriptor)

    def save(self, descriptor: int) -> None:
        """Stop the machine and write its state, but not the memory it shares with a file."""
        self._ignore_shared()
        self.give("state", descriptor)
        self.execute("migrate", uri="fd:state")
        self._migrated()

    def load(self, descriptor: int) -> None:
        """Take the state that stands in a file; QEMU has it open as `descriptor` and its memory in place."""
        self._ignore_shared()
        self.execute("migrate-incoming", uri=f"fd:{descriptor}")
        self._migrated()

    def pause(self) -> None:
        """Stop the virtual CPUs."""
        self.execute("stop")

    def resume(self) -> None:
        """Let them run again."""
        self.execute("cont")

    def power_down(self) -> None:
        """Press the power button."""
        self.execute("system_powerdown")

    def reset(self) -> None:
        """Press the reset button."""
        self.execute("system_reset")

    def status(self) -> str:
        """Ask for the run state: running, paused, shutdown, ..."""
        return str(self.execute("query-status")["status"])

    def balloon(self, memory: int) -> None:
        """Ask the guest to give memory back until it has `memory` bytes."""
        self.execute("balloon", value=memory)

    def _ignore_shared(self) -> None:
        self.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def _migrated(self) -> None:
        while (status := self.execute("query-migrate")).get("status") not in ("completed", "failed", "cancelled"):
            time.sleep(_STEP)
        if status["status"] != "completed":
            raise QmpRefused("its state", str(status.get("error-desc", status["status"])))

    def _connect(self) -> None:
        patience = time.monotonic() + _BOUND
        try:
            self._socket.settimeout(self._left())
            while True:
                try:
                    return self._socket.connect(str(self._path))
                except ConnectionRefusedError:  # it is bound before it listens
                    if time.monotonic() > patience:
                        raise
                time.sleep(_STEP)
        except OSError as error:
            raise QmpUnavailable(self._path, error.strerror or str(error)) from error

    def _next(self) -> _Message:
        try:
            return msgspec.json.decode(next(self._lines), type=_Message)
        except StopIteration:
            raise QmpUnavailable(self._path, "the machine has ended") from None
        except (OSError, msgspec.DecodeError) as error:
            raise QmpUnavailable(self._path, str(error)) from error

    def _read_lines(self) -> Iterator[bytes]:
        pending = b""
        while len(pending) < _LINE_LIMIT:
            self._socket.settimeout(self._left())
            received = self._socket.recv(65536)
            if not received:
                return
            *lines, pending = (pending + received).split(b"\n")
            yield from lines

    def _left(self) -> float:
        return max(0.001, self._deadline - time.monotonic())
