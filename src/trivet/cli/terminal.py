"""The caller's terminal: raw mode that is always undone, its size, and the keys that detach."""

from __future__ import annotations

import os
import sys
import termios
import tty
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from trivet.base.error import InvalidArgument

DETACH_KEYS = "ctrl-p,ctrl-q"


class NotATerminal(InvalidArgument):
    """`-it` without a terminal."""

    def __init__(self) -> None:
        super().__init__("the input device is not a TTY", hint="leave out -t when input is a pipe or a file")


def require_terminal() -> None:
    """Raise `NotATerminal` unless standard input is one."""
    if not is_terminal(0):
        raise NotATerminal


def standard_input() -> BinaryIO:
    """Open standard input without Python's buffer.

    A sender that is still reading when the command ends would hold the buffer's lock, and the
    interpreter aborts when it can't get that at its end.
    """
    return cast(BinaryIO, open(0, "rb", buffering=0, closefd=False))


def is_terminal(descriptor: int) -> bool:
    """Tell whether a descriptor is open and a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def size() -> tuple[int, int]:
    """Return rows and columns of the terminal, 0 and 0 without one."""
    for descriptor in (0, 1, 2):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        return rows, columns
    return 0, 0


@contextmanager
def raw(descriptor: int = 0) -> Iterator[None]:
    """Pass every key on untouched; the old settings come back however the block is left."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        sys.stdout.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def keys(text: str) -> bytes:
    """Read `ctrl-p,ctrl-q`: letters, and ctrl-x for control characters; "" for none."""
    return bytes(_key(word, text) for word in text.split(",")) if text else b""


def _key(word: str, text: str) -> int:
    name = word.removeprefix("ctrl-").lower()
    if word.startswith("ctrl-") and len(name) == 1 and (name.isalpha() or name in "@[\\]^_"):
        return ord(name.upper()) & 0x1F
    if len(word) == 1 and word.isascii():
        return ord(word)
    raise ArgumentTypeError(f"{text!r} is not a sequence of keys; write {DETACH_KEYS}")


class DetachKeys:
    """Watches typed bytes for the sequence that detaches."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0
        self.seen = False

    def filter(self, data: bytes) -> bytes:
        """Return what to pass on; a beginning of the sequence waits until it is broken or complete."""
        if not self._sequence:
            return data
        passed = bytearray()
        for byte in data:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    self.seen = True
                    break
                continue
            passed += self._sequence[: self._matched]
            self._matched = 1 if byte == self._sequence[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed)
