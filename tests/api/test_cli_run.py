"""`trivet run` and its relatives, end to end: command, engine, container."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import BIN, Daemon

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def name(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for an instance, which is gone afterwards."""
    name = request.node.name.replace("test_", "").translate(str.maketrans("[]_/ ", "-----")).strip("-")[:60]
    yield name
    daemon.trivet("rm", "-f", "-v", name)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_exit_codes(daemon: Daemon, busybox: str, script: str, code: int) -> None:
    """`run` exits with the program's code, 128+n after a signal."""
    assert daemon.trivet("run", "--rm", "--init", busybox, "sh", "-c", script).returncode == code


@pytest.mark.parametrize(("program", "code"), [("nonexistent", 127), ("/etc/passwd", 126), ("/tmp", 126)])
def test_programs_that_cannot_run(daemon: Daemon, busybox: str, program: str, code: int) -> None:
    """A program that isn't there is 127, one that can't be executed 126, both with a sentence, for run and exec."""
    done = daemon.trivet("run", "--rm", busybox, program)
    assert (done.returncode, done.stdout) == (code, b"")
    assert program in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_streams_stay_apart(daemon: Daemon, busybox: str) -> None:
    """Standard output and standard error arrive where they belong, byte for byte."""
    done = daemon.trivet("run", "--rm", busybox, "sh", "-c", r"printf 'a\000\377\r\n'; printf b >&2")
    assert (done.stdout, done.stderr) == (b"a\0\xff\r\n", b"b")


def test_input_is_passed_on(daemon: Daemon, busybox: str) -> None:
    """Megabytes through `cat` come back whole, and the end of input ends it."""
    data = os.urandom(3 << 20)
    assert daemon.trivet("run", "-i", "--rm", busybox, "cat", input=data).stdout == data


def test_without_interactive_input_is_empty(daemon: Daemon, busybox: str) -> None:
    """Without -i the program's input is empty, whatever the command's is."""
    assert daemon.trivet("run", "--rm", busybox, "cat", input=b"secret").stdout == b""


def test_options_arrive(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """Variables, user, directory, hostname and a host file are seen inside."""
    (tmp_path / "file").write_text("hello")
    tmp_path.chmod(0o755)
    script = "echo $A $(id -u):$(id -g) $(pwd) $(hostname) $(cat /x/file)"
    line = [
        "-e",
        "A=1",
        "-u",
        "user",
        "-w",
        "/tmp",
        "-h",
        "box",
        "-v",
        f"{tmp_path}:/x:ro",
        busybox,
        "sh",
        "-c",
        script,
    ]
    assert daemon.ok("run", "--rm", *line) == "1 1000:1000 /tmp box hello"


def test_detached(daemon: Daemon, busybox: str, name: str, tmp_path: Path) -> None:
    """`-d` prints the id, which the --cidfile has too; ps, logs, wait and inspect know the instance."""
    file = tmp_path / "id"
    key = daemon.ok(
        "run", "-d", "--name", name, "--cidfile", file, "-l", "test=detached", busybox, "sh", "-c", "echo hi; sleep 300"
    )
    assert file.read_text() == key
    row = json.loads(daemon.ok("ps", "--json", "--filter", "label=test=detached"))
    assert (row["id"], row["name"], row["status"], row["isolation"]) == (key, name, "running", "container")
    assert daemon.ok("ps", "-q", "--no-trunc", "--filter", f"name={name}") == key
    assert name in daemon.ok("ps")
    assert [item["id"] for item in json.loads(daemon.ok("inspect", name))] == [key]
    assert daemon.ok("logs", name) == "hi"
    assert "sleep" in daemon.ok("top", name)
    assert daemon.ok("stop", "-t", "0", name) == name
    assert daemon.ok("wait", name) == "137"
    assert "exited (137)" in daemon.ok("ps", "-a")
    assert daemon.ok("rm", name) == name
    assert daemon.trivet("inspect", name).returncode == 1


def test_exec(daemon: Daemon, busybox: str, name: str) -> None:
    """`exec` has its own input, output, variables, user and exit code."""
    daemon.ok("run", "-d", "--name", name, busybox, "sleep", "300")
    done = daemon.trivet(
        "exec", "-i", "-e", "A=1", "-u", "user", name, "sh", "-c", "cat; echo $A $(id -u) >&2; exit 9", input=b"in"
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, b"in", b"1 1000\n")
    assert daemon.trivet("exec", name, "nonexistent").returncode == 127
    assert daemon.trivet("exec", "nobody", "true").returncode == 125
    daemon.ok("exec", "-d", name, "touch", "/tmp/made")
    deadline = time.monotonic() + 5
    while daemon.trivet("exec", name, "test", "-e", "/tmp/made").returncode and time.monotonic() < deadline:
        time.sleep(0.05)
    assert daemon.trivet("exec", name, "test", "-e", "/tmp/made").returncode == 0


def test_signals_are_forwarded(daemon: Daemon, busybox: str) -> None:
    """A signal to the command reaches the program, even while its input is stuffed."""
    script = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    command = [str(BIN / "trivet"), "run", "-i", "--rm", busybox, "sh", "-c", script]
    environ = {**os.environ, "TRIVET_HOST": daemon.address}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        os.set_blocking(running.stdin.fileno(), False)
        for _ in range(100):
            try:
                os.write(running.stdin.fileno(), bytes(65536))
            except BlockingIOError:
                time.sleep(0.01)
        running.send_signal(signal.SIGUSR1)
        assert running.stdout.readline() == b"got\n"
        assert running.wait(20) == 5


def test_a_terminal(daemon: Daemon, busybox: str) -> None:
    """`-it` gives a terminal of the caller's size, passes ctrl-C on as a key, and restores the caller's."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (33, 77))
    before = termios.tcgetattr(slave)
    command = [
        str(BIN / "trivet"),
        "run",
        "-it",
        "--rm",
        busybox,
        "sh",
        "-c",
        "stty size; trap 'echo INT; exit 3' INT; echo go; sleep 100 & wait",
    ]
    environ = {**os.environ, "TRIVET_HOST": daemon.address}
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
    ) as running:
        seen = _read_until(master, b"go")
        assert b"33 77" in seen
        os.write(master, b"\x03")
        _read_until(master, b"INT")
        assert running.wait(20) == 3
    assert termios.tcgetattr(slave) == before


def test_detaching(daemon: Daemon, busybox: str, name: str) -> None:
    """ctrl-p ctrl-q leaves the instance running, and attach comes back to it."""
    environ = {**os.environ, "TRIVET_HOST": daemon.address}
    for line in (["run", "-it", "--name", name, busybox, "sh"], ["attach", name]):
        master, slave = pty.openpty()
        command = [str(BIN / "trivet"), *line]
        with subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
        ) as running:
            time.sleep(0.2)
            os.write(master, b"echo $((40+2))\r")
            _read_until(master, b"42")
            os.write(master, b"\x10\x11")
            assert running.wait(20) == 0
    assert json.loads(daemon.ok("inspect", name))[0]["status"] == "running"


def test_logs(daemon: Daemon, busybox: str, name: str) -> None:
    """`logs` keeps streams apart, tails, stamps and follows to the end."""
    daemon.ok("run", "-d", "--name", name, busybox, "sh", "-c", "echo 1; echo 2 >&2; echo 3; sleep 1; echo 4")
    followed = daemon.trivet("logs", "-f", name)
    assert (followed.stdout, followed.stderr) == (b"1\n3\n4\n", b"2\n")
    assert daemon.ok("logs", "--tail", "1", name) == "4"
    assert daemon.ok("logs", "--tail", "0", name) == ""
    stamp, _, text = daemon.ok("logs", "-t", "--tail", "1", name).partition(" ")
    assert text == "4"
    assert stamp.startswith("20")
    assert daemon.ok("logs", "--since", stamp, name) in ("4", "")
    assert daemon.ok("logs", "--until", "2001-01-01", name) == ""


def test_created_then_started(daemon: Daemon, busybox: str, name: str) -> None:
    """`create` doesn't start; `start -a` does, and exits with the program's code."""
    daemon.ok("create", "--name", name, busybox, "sh", "-c", "echo started; exit 4")
    assert json.loads(daemon.ok("inspect", name))[0]["status"] == "created"
    done = daemon.trivet("start", "-a", name)
    assert (done.returncode, done.stdout) == (4, b"started\n")


def test_pause_rename_and_ports(daemon: Daemon, busybox: str, name: str) -> None:
    """`pause`, `unpause`, `rename`, `port` and `restart` do what they say."""
    daemon.ok("run", "-d", "--name", f"{name}-old", "-p", "127.0.0.1::80", busybox, "sleep", "300")
    daemon.ok("rename", f"{name}-old", name)
    address = daemon.ok("port", name, "80")
    assert address.startswith("127.0.0.1:")
    assert daemon.ok("port", name) == f"80/tcp -> {address}"
    assert daemon.trivet("port", name, "81").returncode == 1
    daemon.ok("pause", name)
    assert json.loads(daemon.ok("inspect", name))[0]["status"] == "paused"
    daemon.ok("unpause", name)
    daemon.ok("restart", "-t", "0", name)
    assert json.loads(daemon.ok("inspect", name))[0]["status"] == "running"


def test_stats(daemon: Daemon, busybox: str, name: str) -> None:
    """`stats` measures a running instance."""
    daemon.ok("run", "-d", "--name", name, "-m", "64m", busybox, "sleep", "300")
    sample = json.loads(daemon.ok("stats", "--no-stream", "--json", name))
    assert (sample["name"], sample["pids"], sample["memory_limit"]) == (name, 1, 64 << 20)
    assert sample["sent"] + sample["received"] < 1 << 20  # its own interface's, not the host's
    assert name in daemon.ok("stats", "--no-stream")


def test_dry_run(daemon: Daemon, busybox: str) -> None:
    """`--dry-run` prints plan and operations and makes nothing."""
    before = daemon.ok("ps", "-aq")
    text = daemon.ok("run", "--dry-run", "--name", "dry", busybox, "echo", "hi")
    assert text.startswith("# plan\n{")
    assert "# operations\n" in text
    plan = json.loads(daemon.ok("run", "--dry-run", "--json", busybox, "echo", "hi"))
    assert plan["plan"]["program"]["argv"] == ["echo", "hi"]
    assert plan["operations"]
    assert daemon.ok("ps", "-aq") == before


REFUSED = [
    (["run", "nosuchimage:1"], 125, "nosuchimage:1"),
    (["run", "--pull", "never", "nosuchimage:1"], 125, "nosuchimage:1"),
    (["run", "UPPER:1"], 125, "UPPER"),
    (["run", "--network", "nosuch", "busybox:test"], 125, "nosuch"),
    (["run", "--mount", "type=bind,source=/no/such,target=/x", "busybox:test"], 125, "/no/such"),
    (["run", "-u", "nobodyhere", "busybox:test", "true"], 125, "nobodyhere"),
    (["stop", "nosuch"], 1, "nosuch"),
    (["logs", "nosuch"], 1, "nosuch"),
    (["exec", "nosuch", "true"], 125, "nosuch"),
    (["cp", "nosuch:/x", "."], 1, "nosuch"),
    (["rmi", "nosuch"], 1, "nosuch"),
    (["volume", "rm", "nosuch"], 1, "nosuch"),
    (["network", "rm", "nosuch"], 1, "nosuch"),
    (["inspect", "nosuch"], 1, "no such instance, image, volume or network: nosuch"),
]


@pytest.mark.parametrize(
    ("line", "code", "named"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_refusals(daemon: Daemon, busybox: str, line: list[str], code: int, named: str) -> None:
    """What can't be done is one sentence naming the object, with the documented exit code, and leaves nothing."""
    before = daemon.ok("ps", "-aq")
    done = daemon.trivet(*line)
    error = done.stderr.decode()
    assert done.returncode == code, error
    assert error.splitlines()[-1].startswith(("trivet: ", "hint: "))
    assert named in error
    assert "Traceback" not in error
    assert daemon.ok("ps", "-aq") == before


def test_names_are_taken_once(daemon: Daemon, busybox: str, name: str) -> None:
    """A second instance of the same name is refused."""
    daemon.ok("create", "--name", name, busybox)
    done = daemon.trivet("create", "--name", name, busybox)
    assert done.returncode == 1
    assert name in done.stderr.decode()


def _read_until(descriptor: int, end: bytes) -> bytes:
    data = b""
    while end not in data:
        data += os.read(descriptor, 4096)
    return data
