"""Waiting for a program in the foreground: signals go to it, its terminal comes to ours."""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from trivet.oci.runtime import Box

_SIZE = struct.Struct("HHHH")  # struct winsize
_KEPT = {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGURG, signal.SIGPIPE, signal.SIGWINCH}
_KEPT |= {signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


def size() -> Box | None:
    """Give the size of the terminal on standard input, None when that isn't one."""
    if not os.isatty(0):
        return None
    columns, rows = os.get_terminal_size(0)
    return Box(height=rows, width=columns)


def wait(pid: int, master: int | None) -> int:
    """Wait for our child `pid` and give its exit code, 128+n after signal n."""
    with _forwarding(pid, master):
        if master is not None:
            with _raw():
                _relay(pid, master)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _relay(pid: int, master: int) -> None:
    """Copy between our terminal and the program's until the program has ended and what it said was read."""
    ended = os.pidfd_open(pid)
    os.set_blocking(master, False)
    try:
        # poll, not epoll, which refuses regular files as standard input.
        with selectors.PollSelector() as selector:
            for descriptor in (0, master, ended):
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if master in ready and not _output(master):
                    return
                if ended in ready and master not in ready:
                    return
                if 0 in ready and not _input(master):
                    selector.unregister(0)
    finally:
        os.close(ended)


def _input(master: int) -> bool:
    data = os.read(0, 4096)
    os.set_blocking(master, True)
    _write(master, data or b"\x04")
    os.set_blocking(master, False)
    return bool(data)


def _output(master: int) -> bool:
    try:
        data = os.read(master, 65536)
    except BlockingIOError:
        return True
    except OSError:  # EIO: the last user of the terminal has gone
        return False
    _write(1, data)
    return bool(data)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _raw() -> Iterator[None]:
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _forwarding(pid: int, master: int | None) -> Iterator[None]:
    """Pass signals on, and the size of the terminal, now and when it changes."""

    def resize(*_: object) -> None:
        now = size()
        if now is not None and master is not None:
            fcntl.ioctl(master, termios.TIOCSWINSZ, _SIZE.pack(now.height, now.width, 0, 0))

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    before = {}
    for number in signal.valid_signals() - _KEPT:
        with suppress(OSError, ValueError):
            before[number] = signal.signal(number, forward)
    before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
    resize()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
