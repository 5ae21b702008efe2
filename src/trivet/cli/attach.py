"""The conversation between the caller's terminal (or pipes) and a program, until one of them is done."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from trivet.cli import terminal
from trivet.client.problem import EngineGone
from trivet.client.stream import Exit, Output, Stream

PIECE = 64 << 10
DETACHED = 0

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
ENDING = (signal.SIGTERM, signal.SIGHUP)


class Settings(NamedTuple):
    """How to connect; `forward` sends a signal on (None: signals are the caller's own)."""

    terminal: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    detach_keys: bytes = b""
    forward: Callable[[int], None] | None = None


class Ended(Exception):
    """A signal that wasn't for the program ended the conversation."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def converse(stream: Stream, settings: Settings) -> int:
    """Pass bytes, signals and terminal sizes until the program's exit; returns its code, 0 when detached.

    Raises `ProgramFailed` when it couldn't be started and `EngineGone` when the stream breaks off.
    """
    with ExitStack() as stack:
        watched = (signal.SIGWINCH, *ENDING) if settings.terminal else FORWARDED
        wakeup = stack.enter_context(_signals(watched if settings.forward or settings.terminal else ()))
        if settings.terminal and settings.stdin and terminal.is_terminal(0):
            stack.enter_context(terminal.raw())
            _resize(stream)
        try:
            return _Conversation(stream, settings, wakeup).run()
        except Ended as error:
            return 128 + error.number


class _Conversation:
    def __init__(self, stream: Stream, settings: Settings, wakeup: socket.socket) -> None:
        self._stream = stream
        self._settings = settings
        self._wakeup = wakeup
        self._typing = settings.stdin
        self._keys = terminal.DetachKeys(settings.detach_keys if settings.terminal else b"")
        self._code: int | None = None

    def run(self) -> int:
        """Wait for whichever side speaks next. Input is read only when the last of it has been sent."""
        self._take_output()
        while self._code is None and not self._keys.seen:
            reading: list[int] = [self._stream.fileno(), self._wakeup.fileno()]
            if self._typing and not self._stream.pending:
                reading.append(0)
            writing = [self._stream.fileno()] if self._stream.pending else []
            readable, _, _ = select.select(reading, writing, [])
            if self._wakeup.fileno() in readable:
                self._take_signals()
            if 0 in readable:
                self._take_input()
            if self._stream.fileno() in readable:
                more = self._stream.receive()
                self._take_output()
                if not more and self._code is None:
                    raise EngineGone("lost the connection to the engine; the instance keeps running")
            self._stream.flush(wait=False)
        return DETACHED if self._code is None else self._code

    def _take_output(self) -> None:
        for event in self._stream.received():
            if isinstance(event, Exit):
                self._code = event.code
                return
            if event.error and self._settings.stderr:
                write_all(2, event.data)
            elif not event.error and self._settings.stdout:
                write_all(1, event.data)

    def _take_input(self) -> None:
        try:
            data = os.read(0, PIECE)
        except OSError:  # a closed terminal, or none at all
            data = b""
        if not data:
            self._typing = False
            self._stream.end()
            return
        self._stream.write(self._keys.filter(data))

    def _take_signals(self) -> None:
        for number in self._wakeup.recv(64):
            if number == signal.SIGWINCH:
                _resize(self._stream)
            elif self._settings.terminal:
                raise Ended(number)
            elif self._settings.forward is not None:
                self._settings.forward(number)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, also to a descriptor that somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def replay(events: Iterator[Output], change: Callable[[Output], bytes] = lambda output: output.data) -> None:
    """Write output pieces to where they belong."""
    for event in events:
        write_all(2 if event.error else 1, change(event))


def _resize(stream: Stream) -> None:
    rows, columns = terminal.size()
    if rows and columns:
        stream.resize(rows, columns)


@contextmanager
def _signals(watched: tuple[signal.Signals, ...]) -> Iterator[socket.socket]:
    """Turn signals into bytes on a socket that select waits for."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in watched}
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()
