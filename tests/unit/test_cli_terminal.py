"""A real pseudo-terminal on one side, a real socket on the other."""

from __future__ import annotations

import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import IO

import pytest

from trivet.cli.attach import Settings, converse
from trivet.cli.terminal import DetachKeys, keys
from trivet.client.problem import EngineGone
from trivet.client.stream import Stream
from trivet.launch.frame import HEADER, Type, pack

EXIT = pack(Type.EXIT, struct.pack("<IIQI", 7, 0, 0, 0))

# Runs the conversation in a process of its own, whose standard descriptors and signals are real.
CHILD = """
import signal, socket, sys
from trivet.cli.attach import Settings, converse
from trivet.client.stream import Stream
from trivet.cli.terminal import keys
stream = Stream(socket.socket(fileno=int(sys.argv[1])))
tty = sys.argv[2] == "tty"
forward = None if tty else stream.signal
sys.exit(converse(stream, Settings(terminal=tty, stdin=True, detach_keys=keys("ctrl-p,ctrl-q"), forward=forward)))
"""


class Far:
    """The engine's end of a stream."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(10)

    def receive(self) -> tuple[Type, bytes]:
        kind, _, _, length = HEADER.unpack(self.socket.recv(HEADER.size, socket.MSG_WAITALL))
        return Type(kind), self.socket.recv(length, socket.MSG_WAITALL) if length else b""


@pytest.fixture
def pair() -> Iterator[tuple[Far, socket.socket]]:
    near, far = socket.socketpair()
    yield Far(far), near
    far.close()
    near.close()


def start(
    near: socket.socket, mode: str, standard: int | IO[bytes], output: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, str(near.fileno()), mode]
    return subprocess.Popen(command, stdin=standard, stdout=output, pass_fds=[near.fileno()], start_new_session=True)


@pytest.mark.parametrize(
    ("typed", "passed", "seen"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10x"], b"\x10x", False),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
    ],
)
def test_detach_keys(typed: list[bytes], passed: bytes, seen: bool) -> None:
    """The sequence is swallowed when complete, passed on when it turns out to be something else."""
    watcher = DetachKeys(keys("ctrl-p,ctrl-q"))
    assert b"".join(watcher.filter(piece) for piece in typed) == passed
    assert watcher.seen is seen


def test_key_names() -> None:
    """Keys are letters and ctrl- with a letter."""
    assert keys("ctrl-a,x,ctrl-[") == b"\x01x\x1b"
    assert keys("") == b""


def test_a_terminal_is_raw_and_comes_back(pair: tuple[Far, socket.socket]) -> None:
    """In a terminal every key is passed on as it is, its size is told, and the old settings come back at the exit."""
    far, near = pair
    master, slave = pty.openpty()
    termios.tcsetwinsize(master, (30, 100))
    before = termios.tcgetattr(slave)
    child = start(near, "tty", slave, slave)
    assert far.receive() == (Type.RESIZE, struct.pack("<HH", 30, 100))
    os.write(master, b"\x03\r")
    assert far.receive() == (Type.STDIN, b"\x03\r")
    termios.tcsetwinsize(master, (40, 90))
    child.send_signal(signal.SIGWINCH)
    assert far.receive() == (Type.RESIZE, struct.pack("<HH", 40, 90))
    far.socket.sendall(pack(Type.STDOUT, b"hello") + EXIT)
    assert child.wait(10) == 7
    assert os.read(master, 100) == b"hello"
    assert termios.tcgetattr(slave) == before


@pytest.mark.parametrize("how", ["detach", "terminated", "engine gone"])
def test_a_terminal_comes_back_on_every_way_out(pair: tuple[Far, socket.socket], how: str) -> None:
    """The settings come back after the detach keys, SIGTERM and a lost engine too."""
    far, near = pair
    master, slave = pty.openpty()
    termios.tcsetwinsize(master, (24, 80))
    before = termios.tcgetattr(slave)
    child = start(near, "tty", slave, slave)
    near.close()
    far.receive()
    if how == "detach":
        os.write(master, b"\x10\x11")
    elif how == "terminated":
        child.terminate()
    else:
        far.socket.close()
    assert child.wait(10) == {"detach": 0, "terminated": 143, "engine gone": 1}[how]
    assert termios.tcgetattr(slave) == before


def test_pipes_and_signals(pair: tuple[Far, socket.socket]) -> None:
    """Without a terminal input and its end are passed on, and signals are forwarded instead of killing the command."""
    far, near = pair
    child = start(near, "pipes", subprocess.PIPE, subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(b"line\n")
    child.stdin.flush()
    assert far.receive() == (Type.STDIN, b"line\n")
    child.send_signal(signal.SIGINT)
    assert far.receive() == (Type.SIGNAL, struct.pack("<I", signal.SIGINT))
    child.send_signal(signal.SIGTERM)
    assert far.receive() == (Type.SIGNAL, struct.pack("<I", signal.SIGTERM))
    child.stdin.close()
    assert far.receive() == (Type.STDIN, b"")
    far.socket.sendall(EXIT)
    assert child.wait(10) == 7


def test_much_input_and_much_output_at_once(pair: tuple[Far, socket.socket]) -> None:
    """A program that writes while its input waits doesn't lock the two up."""
    far, near = pair
    data = os.urandom(5 << 20)
    child = start(near, "pipes", subprocess.PIPE, subprocess.PIPE)

    def echo() -> None:
        received = 0
        while received < len(data):
            kind, payload = far.receive()
            if kind is Type.STDIN:
                received += len(payload)
                for _ in range(2):
                    far.socket.sendall(pack(Type.STDOUT, payload))
        far.socket.sendall(EXIT)

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    output, _ = child.communicate(data, timeout=30)
    assert child.returncode == 7
    assert len(output) == 2 * len(data)


def test_what_is_not_wanted_is_dropped(pair: tuple[Far, socket.socket], capfd: pytest.CaptureFixture[str]) -> None:
    """Only the chosen streams are written."""
    far, near = pair
    far.socket.sendall(pack(Type.STDOUT, b"out") + pack(Type.STDERR, b"err") + EXIT)
    assert converse(Stream(near), Settings(stdout=False)) == 7
    assert capfd.readouterr() == ("", "err")


def test_an_engine_that_goes_away(pair: tuple[Far, socket.socket]) -> None:
    """A stream that ends without an exit is an error, not a success."""
    far, near = pair
    far.socket.sendall(pack(Type.STDOUT, b""))
    far.socket.close()
    with pytest.raises(EngineGone, match="keeps running"):
        converse(Stream(near), Settings())


def test_an_idle_conversation_takes_no_time(pair: tuple[Far, socket.socket]) -> None:
    """Waiting doesn't spin."""
    far, near = pair
    threading.Timer(0.5, far.socket.sendall, [EXIT]).start()
    before = time.process_time()
    converse(Stream(near), Settings())
    assert time.process_time() - before < 0.2
