"""A shell in a step that failed, at a real terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.build.workshop import base_files, make_tar
from tests.conftest import BIN, Daemon

pytestmark = pytest.mark.needs("root")


@pytest.fixture(scope="module")
def engine(daemon: Daemon) -> Daemon:
    """An engine that has the image build-base, whose shell runs `stty` and `sleep`."""
    applets = {f"bin/{name}": "busybox" for name in ("stty", "sleep")}
    daemon.ok("import", "-", "build-base", input=make_tar({**base_files(), **applets}))
    return daemon


def write(context: Path, text: str) -> Path:
    """Write a context's Dockerfile."""
    (context / "Dockerfile").write_text(text)
    return context


def test_shell_in_a_failed_step(engine: Daemon, tmp_path: Path) -> None:
    """--on-error shell opens one with the step's files, mounts, variables and user, and what came before is kept."""
    write(
        tmp_path,
        "FROM build-base\nRUN echo before > /before\nENV SEEN=yes\n"
        "RUN --mount=type=cache,target=/c echo half > /half; echo > /c/kept; exit 7\n",
    )
    with typing(engine, "build", "--on-error", "shell", tmp_path) as (terminal, command):
        begun = read_until(terminal, b"# ")
        os.write(terminal, b"stty size; cat /before /half; ls /c; echo $SEEN$((40+2)); sleep 50\r")
        seen = read_until(terminal, b"yes42\r\n")
        os.write(terminal, b"\x03")
        read_until(terminal, b"# ")
        os.write(terminal, b"exit 3\r")
        told = read_until(terminal, b"exit code 7")
        assert command.wait(20) == 1
    assert b"a shell in the step that failed: RUN --mount=type=cache" in begun
    assert seen.split()[-6:] == [b"33", b"77", b"before", b"half", b"kept", b"yes42"]
    assert b"Dockerfile:4: RUN --mount=type=cache" in told
    again = engine.trivet("build", tmp_path)
    assert again.stderr.count(b"CACHED") == 1
    assert not list(engine.root.glob("snapshot/overlay/instance/build-*"))


def test_no_shell_without_a_terminal(engine: Daemon, tmp_path: Path) -> None:
    """--on-error shell where nobody can type is refused before anything is built."""
    done = engine.trivet("build", "--on-error", "shell", write(tmp_path, "FROM build-base\n"), input=b"echo")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "trivet: --on-error shell needs a terminal, and standard input is none",
        "hint: leave it out where nobody can type",
    ]


@contextmanager
def typing(engine: Daemon, *line: object) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A command at a terminal of 33 rows and 77 columns; gives the other end of it."""
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (33, 77))
        before = termios.tcgetattr(slave)
        command = [str(BIN / "trivet"), *map(str, line)]
        environ = {**os.environ, "TRIVET_HOST": engine.address, "TERM": "xterm"}
        with subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
        ) as running:
            try:
                yield master, running
            finally:
                running.kill()
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def read_until(terminal: int, text: bytes) -> bytes:
    """Read what is shown until `text` is among it."""
    seen = b""
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, seen
        seen += os.read(terminal, 4096)
    return seen
