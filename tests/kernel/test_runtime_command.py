"""`trivet-runtime` as people type it, on a real bundle."""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest
from tests.runtime import COMMAND, Runtime, until


def test_run(runtime: Runtime) -> None:
    """`run` carries input, output and exit code, and deletes the container."""
    runtime.configure("sh", "-c", "cat; hostname; echo err >&2; exit 5")
    done = runtime("run", runtime.id, stdin=b"typed\n")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"typed\ntrivet\n", b"err\n")
    assert runtime("state", runtime.id).returncode == 1
    assert runtime.left() == []


def test_life(runtime: Runtime) -> None:
    """created, running, stopped: each verb where it belongs, and refused where it doesn't."""
    runtime.configure("sh", "-c", "echo begun; exec sleep 600")
    assert runtime("create", "--pid-file", str(runtime.bundle / "pid"), runtime.id).returncode == 0
    state = runtime.json("state", runtime.id)
    assert (state["status"], state["bundle"]) == ("created", str(runtime.bundle))
    assert state["pid"] == int((runtime.bundle / "pid").read_text())
    assert runtime("start", runtime.id).returncode == 0
    assert runtime.json("state", runtime.id)["status"] == "running"
    assert b"is running, not created" in runtime("start", runtime.id).stderr
    assert b"is running, not stopped" in runtime("delete", runtime.id).stderr
    assert runtime("pause", runtime.id).returncode == 0
    assert runtime.json("state", runtime.id)["status"] == "paused"
    assert b"is paused, not running" in runtime("exec", runtime.id, "true").stderr
    assert runtime("resume", runtime.id).returncode == 0
    assert runtime("kill", runtime.id, "KILL").returncode == 0
    until(lambda: runtime.json("state", runtime.id)["status"] == "stopped")
    assert runtime("delete", runtime.id).returncode == 0
    assert b"does not exist" in runtime("state", runtime.id).stderr


def test_exec_ps_and_list(runtime: Runtime) -> None:
    """A further program has its own code, user, place and environment; `ps` and `list` show what runs."""
    runtime.configure("sleep", "600")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    words = ("--user", "5:6", "--cwd", "/bin", "--env", "A=1")
    done = runtime("exec", *words, runtime.id, "sh", "-c", "id -u; id -g; pwd; echo $A; exit 9")
    assert (done.returncode, done.stdout) == (9, b"5\n6\n/bin\n1\n")
    assert runtime("exec", runtime.id, "cat", stdin=b"in").stdout == b"in"
    assert runtime("exec", runtime.id, "no-such-program").returncode != 0
    pid = runtime.json("state", runtime.id)["pid"]
    assert runtime.json("ps", "--format", "json", runtime.id) == [pid]
    assert b"sleep 600" in runtime("ps", runtime.id).stdout
    assert [row["id"] for row in runtime.json("list", "--format", "json")] == [runtime.id]


def test_run_on_a_terminal(runtime: Runtime) -> None:
    """On a terminal the program gets one of the same size."""
    runtime.configure("sh", "-c", "tty; stty size", terminal=True)
    master, slave = pty.openpty()
    os.set_blocking(master, True)
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=slave, check=True)
    command = [str(COMMAND), "--root", str(runtime.root), "run", runtime.id]
    child = subprocess.Popen(command, cwd=runtime.bundle, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # EIO: the last user has gone
            break
        seen += part
    os.close(master)
    assert child.wait(timeout=30) == 0, seen
    assert b"/dev/pts/0" in seen
    assert b"33 99" in seen


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('{"ociVersion": 1}', "$.ociVersion"),
        ('{"ociVersion": "1.0.0"}', "root"),
        ("not json", "not a valid runtime configuration"),
    ],
)
def test_bad_configuration(runtime: Runtime, change: str, words: str) -> None:
    """A bad config.json gets one sentence with its place, exit code 1, in the log too, and leaves nothing."""
    (runtime.bundle / "config.json").write_text(change)
    log = runtime.bundle / "log"
    done = runtime("--log", str(log), "--log-format", "json", "run", runtime.id)
    assert done.returncode == 1
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert words in json.loads(log.read_text())["msg"]
    assert runtime.left() == []


def test_program_that_is_missing(runtime: Runtime) -> None:
    """A program that isn't there is told by its name, and the container is gone again."""
    runtime.configure("no-such-program")
    done = runtime("run", runtime.id)
    assert done.returncode == 1
    assert b"no-such-program" in done.stderr
    assert runtime.left() == []


def test_id_is_taken_or_impossible(runtime: Runtime) -> None:
    """An id is given once, and can't be a path."""
    runtime.configure("sleep", "600")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    assert b"already exists" in runtime("run", runtime.id).stderr
    assert runtime.json("state", runtime.id)["status"] == "running"
    for name in ("../x", "a/b", "..", ""):
        assert runtime("run", name).returncode == 1


def test_features_are_true(runtime: Runtime) -> None:
    """`features` names what is there, and nothing that isn't."""
    features = runtime.json("features")
    assert features["ociVersionMax"] == "1.3.0"
    assert "user" in features["linux"]["namespaces"]
    assert "SCMP_ACT_NOTIFY" in features["linux"]["seccomp"]["actions"]
    assert features["linux"]["intelRdt"]["enabled"] is False
