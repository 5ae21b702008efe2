"""The runtime's front: the verbs of a container's life are done in C, and whatever is unusual is left to Python."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.runtime import COMMAND, Runtime, until

FULL = COMMAND.with_name("trivet-runtime-full")


@pytest.fixture
def lone(runtime: Runtime, tmp_path: Path) -> Runtime:
    """Give the front alone: what it can't do by itself fails."""
    command = tmp_path / "alone/trivet-runtime"
    command.parent.mkdir()
    shutil.copy(COMMAND, command)
    return beside(runtime, command)


def beside(runtime: Runtime, command: Path) -> Runtime:
    """Give another command for the same containers."""
    other = Runtime(command, runtime.root, runtime.bundle)
    other.id = runtime.id
    return other


def same_state(front: Runtime, status: str) -> None:
    """Compare what `state` prints with what Python would have printed."""
    ours, full = front("state", front.id), beside(front, FULL)("state", front.id)
    assert ours.stdout == full.stdout
    assert json.loads(ours.stdout)["status"] == status


def test_a_life_without_python(runtime: Runtime, lone: Runtime) -> None:
    """State, start, kill and delete are done by the front itself, in every status, and nothing is left."""
    runtime.change({"annotations": {'a\n"b': '"status": "running",\\ é'}}, "sleep", "1000")
    assert runtime("create", runtime.id).returncode == 0
    same_state(lone, "created")
    assert lone("start", lone.id).returncode == 0
    same_state(lone, "running")
    assert runtime("pause", runtime.id).returncode == 0
    same_state(lone, "paused")
    assert runtime("resume", runtime.id).returncode == 0
    assert lone("--log", "/nowhere/log", "--log-format=json", "kill", lone.id, "SIGKILL").returncode == 0
    lone.until("stopped")
    same_state(lone, "stopped")
    assert lone("delete", lone.id).returncode == 0
    assert lone.clean()


def test_of_a_replay(runtime: Runtime, lone: Runtime) -> None:
    """A container that was run by a stored plan is known to the front, too."""
    runtime.configure("sleep", "1000")
    for one in (runtime, lone):
        assert one("run", "--detach", one.id).returncode == 0
        same_state(lone, "running")
        assert lone("kill", lone.id, "9").returncode == 0
        lone.until("stopped")
        assert lone("delete", "--force", lone.id).returncode == 0
    assert (runtime.root / "plans@").exists()
    assert lone.clean()


@pytest.mark.parametrize(
    "words",
    [
        ("kill", "ID"),
        ("kill", "ID", "NONE"),
        ("kill", "none"),
        ("delete", "none"),
        ("state", "../ID"),
        ("start", "ID"),
        ("state", "ID", "more"),
        ("--debug-nothing", "state", "ID"),
        ("start",),
    ],
    ids="-".join,
)
def test_words_are_pythons(runtime: Runtime, words: tuple[str, ...]) -> None:
    """What fails is explained as if there were no front, with the same status."""
    runtime.configure("true")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    runtime.until("stopped")
    given = [word.replace("ID", runtime.id) for word in words]
    ours, full = runtime(*given), beside(runtime, FULL)(*given)
    assert (ours.returncode, ours.stdout) == (full.returncode, full.stdout)
    assert ours.stderr.splitlines()[-1] == full.stderr.splitlines()[-1]
    assert ours.returncode != 0


def test_a_program_that_does_not_begin(runtime: Runtime) -> None:
    """`start` says why, and the container has stopped, whoever said GO."""
    (runtime.bundle / "rootfs/bin/odd").write_bytes(b"\x7fODD")
    (runtime.bundle / "rootfs/bin/odd").chmod(0o755)
    runtime.configure("/bin/odd")
    answers = []
    for one in (runtime, beside(runtime, FULL)):
        assert one("create", one.id).returncode == 0
        answers.append(one("start", one.id))
        assert one.json("state", one.id)["status"] == "stopped"
        assert one("delete", one.id).returncode == 0
    assert answers[0].stderr == answers[1].stderr
    assert answers[0].stderr.decode().endswith("exec format error\n")
    assert [answer.returncode for answer in answers] == [1, 1]
    assert runtime.clean()


def asked(runtime: Runtime, name: str, process: dict[str, Any], *argv: str, **changes: Any) -> Path:
    """Write what `exec --process` reads."""
    path = runtime.bundle / name
    path.write_text(json.dumps(process | {"args": list(argv)} | changes))
    return path


@pytest.fixture
def running(runtime: Runtime) -> dict[str, Any]:
    """Run a container, and give its process."""
    runtime.configure("sleep", "1000", env=["PATH=/bin", "OWN=1"])
    assert runtime("run", "--detach", runtime.id).returncode == 0
    process: dict[str, Any] = json.loads((runtime.bundle / "config.json").read_text())["process"]
    return process


def test_what_was_said_once(runtime: Runtime, lone: Runtime) -> None:
    """A capability that can't be granted is a warning when the container is made, and no more at each exec."""
    sets = {name: ["CAP_FLY", "CAP_KILL"] for name in ("bounding", "effective", "permitted")}
    runtime.configure("sleep", "1000", capabilities=sets)
    assert b"warning: capability CAP_FLY" in runtime("create", runtime.id).stderr
    assert lone("start", lone.id).returncode == 0
    done = lone("exec", lone.id, "echo", "one")
    assert (done.stdout, done.stderr) == (b"one\n", b"")


def test_exec_again(running: dict[str, Any], runtime: Runtime, lone: Runtime) -> None:
    """What is like an exec before needs no Python: the same rights, and what is asked for this time."""
    script = (
        "echo $0 $OWN $MORE $PWD; tr -d '\\0' < /proc/self/cgroup; grep -E 'Cap|NoNew|Groups' /proc/self/status; exit 7"
    )
    command = ("sh", "-c", script)
    first = beside(runtime, FULL)("exec", runtime.id, *command, "é")
    again = lone("exec", "--env", "MORE=2", "--cwd=/tmp", lone.id, *command, "\udcff")
    assert (first.returncode, again.returncode) == (7, 7)
    assert first.stdout.splitlines()[1:] == again.stdout.splitlines()[1:]
    assert first.stdout.splitlines()[0] == "é 1 /".encode()
    assert again.stdout.splitlines()[0] == b"\xff 1 2 /tmp"
    assert lone("exec", lone.id, "cat", stdin=b"given").stdout == b"given"
    assert not list((runtime.root / runtime.id).glob("exec-*"))


def test_exec_of_a_file_again(running: dict[str, Any], runtime: Runtime, lone: Runtime) -> None:
    """A process as JSON is known again by all but its arguments, environment and directory."""
    words = ("exec", "--pid-file", "pid", "--process")
    own = asked(runtime, "own", running, "echo", "own")
    assert beside(runtime, FULL)(*words, own, runtime.id).stdout == b"own\n"
    script = 'echo "$1" $OWN $PWD'
    again = asked(
        runtime, "again", running, "sh", "-c", script, "sh", 'a"\t<\x7f', env=["PATH=/bin", "OWN=3"], cwd="/tmp"
    )
    assert lone(*words, again, lone.id).stdout == b'a"\t<\x7f 3 /tmp\n'
    assert int((runtime.bundle / "pid").read_text()) > 0
    spaced = runtime.bundle / "spaced"
    spaced.write_text(json.dumps(json.loads(again.read_text()), indent=3))
    assert lone("exec", "--process", spaced, lone.id).returncode == 0


def test_the_first_exec(runtime: Runtime, lone: Runtime) -> None:
    """Plans of programs like the container's own are there once it was created."""
    runtime.configure("sleep", "1000", env=["PATH=/bin", "OWN=1"])
    assert runtime("create", runtime.id).returncode == 0
    assert lone("start", lone.id).returncode == 0
    assert lone("exec", lone.id, "echo", "first").stdout == b"first\n"
    own = json.loads((runtime.bundle / "config.json").read_text())["process"]
    assert lone("exec", "--process", asked(runtime, "own", own, "echo", "own"), lone.id).stdout == b"own\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"user": {"uid": 5, "gid": 5}},
        {"noNewPrivileges": False},
        {"capabilities": {}},
        {"terminal": True},
        {"args": []},
        {"args": ["echo", "é"]},
        {"cwd": "tmp"},
        {"env": None},
        {"rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_process_is_thought_about(
    running: dict[str, Any], runtime: Runtime, lone: Runtime, changes: dict[str, Any]
) -> None:
    """Whoever is to be somebody else, or to have other rights, isn't taken for the one before."""
    own = asked(runtime, "own", running, "true")
    assert runtime("exec", "--process", own, runtime.id).returncode == 0
    other = asked(runtime, "other", running, "true", **changes)
    done = lone("exec", "--process", other, lone.id)
    assert done.stderr.startswith(b"trivet-runtime: cannot execute ")
    assert lone("exec", "--process", own, lone.id).returncode == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"args":["true"]', '{"args":["true"],}', '{"args":["true"],"args":["id"],"cwd":"/"}']
)
def test_a_process_that_is_none(running: dict[str, Any], runtime: Runtime, text: str) -> None:
    """Broken JSON is refused in Python's words."""
    assert runtime("exec", runtime.id, "true").returncode == 0
    path = runtime.bundle / "broken"
    path.write_text(text)
    ours, full = (one("exec", "--process", path, one.id) for one in (runtime, beside(runtime, FULL)))
    assert (ours.returncode, ours.stderr) == (full.returncode, full.stderr)


def test_other_limits_are_thought_about(running: dict[str, Any], runtime: Runtime, lone: Runtime) -> None:
    """A caller with other rights or limits than the one before gets a plan of its own."""
    assert runtime("exec", runtime.id, "true").returncode == 0
    assert lone("exec", lone.id, "true").returncode == 0

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))

    assert lone("exec", lone.id, "true", preexec_fn=lower).returncode == 1
    assert runtime("exec", runtime.id, "true", preexec_fn=lower).returncode == 0
    assert lone("exec", lone.id, "true", preexec_fn=lower).returncode == 0


def test_a_program_that_is_not_there(running: dict[str, Any], runtime: Runtime) -> None:
    """It is told as if there were no front; a paused container is refused."""
    assert runtime("exec", runtime.id, "true").returncode == 0
    done = runtime("exec", runtime.id, "nothing")
    assert done.returncode == 1
    assert done.stderr.endswith(b"executable file not found in $PATH\n")
    assert runtime("pause", runtime.id).returncode == 0
    assert b"is paused, not running" in runtime("exec", runtime.id, "true").stderr
    assert runtime("resume", runtime.id).returncode == 0


def test_signals_go_to_the_program(running: dict[str, Any], runtime: Runtime, lone: Runtime) -> None:
    """Whoever waits for an exec passes signals on and gives its status."""
    assert runtime("exec", runtime.id, "true").returncode == 0
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    command = [lone.command, "--root", lone.root, "exec", lone.id, "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        program.send_signal(signal.SIGUSR1)
        assert program.wait() == 9


def test_an_unreadable_brief(runtime: Runtime, lone: Runtime) -> None:
    """Without a whole brief everything is left to Python, which does it."""
    runtime.configure("sleep", "1000")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    brief = runtime.root / runtime.id / "brief"
    brief.write_bytes(brief.read_bytes()[:-3])
    assert lone("state", lone.id).returncode == 1
    assert runtime.json("state", runtime.id)["status"] == "running"
    brief.unlink()
    assert runtime("kill", runtime.id, "KILL").returncode == 0
    runtime.until("stopped")
    assert runtime("delete", runtime.id).returncode == 0
    assert runtime.clean()


def test_alone(lone: Runtime) -> None:
    """A front that has lost the rest names it."""
    done = lone("list")
    assert done.returncode == 1
    assert done.stderr.decode() == f"trivet-runtime: cannot execute {lone.command}-full: No such file or directory\n"


def test_who_lives_in_the_group(runtime: Runtime) -> None:
    """`delete` leaves a stopped container's other processes to Python, which ends them."""
    spaces = [one for one in runtime.example()["linux"]["namespaces"] if one["type"] != "pid"]
    runtime.change({"linux": {"namespaces": spaces}}, "sh", "-c", "sleep 1000 & echo $!")
    done = runtime("run", "--detach", runtime.id)
    left = int(done.stdout)
    runtime.until("stopped")
    os.kill(left, 0)
    assert runtime("delete", runtime.id).returncode == 0
    until(lambda: not Path(f"/proc/{left}/fd").exists() or Path(f"/proc/{left}/stat").read_text().split()[2] == "Z")
    assert runtime.clean()
