"""A terminal or three pipes on one side, a monitor's channel on the other."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trivet.base.error import NotFound
from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.oci.runtime import Box, Process

FAILED = 255


class CannotExecute(NotFound):
    """The program could not be executed."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"cannot execute {name}: {cause}")


def size() -> Box | None:
    """Give the size of the terminal on standard input, None when that isn't one."""
    if not os.isatty(0):
        return None
    columns, rows = os.get_terminal_size(0)
    return Box(height=rows, width=columns)


def begin(channel: Channel, process: Process | None) -> int:
    """Let the waiting program begin; gives its pid. Raises `CannotExecute`."""
    channel.go()
    while (frame := channel.receive()) is not None:
        if frame.type is Type.STARTED:
            return int.from_bytes(frame.payload[:4], "little")
        if frame.type is Type.FAILED:
            name = process.args[0] if process and process.args else ""
            raise CannotExecute(name, frame.payload[8:].decode(errors="replace"))
    raise CannotExecute("", "the monitor ended")


def relay(channel: Channel, *, terminal: bool) -> int:
    """Carry input, output, sizes and signals until the program has ended; gives its exit code."""
    connection = channel.detach()
    channel = Channel(connection)
    # poll, not epoll, which refuses regular files as standard input.
    with _raw(terminal), _forwarding(channel, terminal), selectors.PollSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    _pass_input(channel, selector)
                elif (code := _pass_output(channel)) is not None:
                    return code


def _pass_input(channel: Channel, selector: selectors.BaseSelector) -> None:
    data = os.read(0, 65536)
    try:
        channel.send(Type.STDIN, data)
    except (BrokenPipeError, ConnectionResetError):
        data = b""  # it has ended, and its last words are still to be read
    if not data:
        selector.unregister(0)


def _pass_output(channel: Channel) -> int | None:
    frame = channel.receive()
    match frame:
        case None:
            return FAILED
        case _ if frame.type in (Type.STDOUT, Type.STDERR):
            _write(1 if frame.type is Type.STDOUT else 2, frame.payload)
        case _ if frame.type is Type.FAILED:
            sys.stderr.write(f"trivet-runtime: {frame.payload[8:].decode(errors='replace')}\n")
            return FAILED
        case _ if frame.type is Type.EXIT:
            return int.from_bytes(frame.payload[:4], "little")
    return None


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _raw(terminal: bool) -> Iterator[None]:
    if not (terminal and os.isatty(0)):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _forwarding(channel: Channel, terminal: bool) -> Iterator[None]:
    """Pass signals on, and the size of the terminal, now and when it changes."""

    def resize(*_: object) -> None:
        now = size()
        if now is not None:
            channel.resize(now.height, now.width)

    def forward(number: int, _: FrameType | None) -> None:
        channel.signal(number)

    handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT), forward)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    if terminal and os.isatty(0):
        before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
