"""The runtime's front: the verbs of a container's life are done in C, and whatever is unusual is left to Python."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

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
    for _ in range(2):
        assert runtime("run", "--detach", runtime.id).returncode == 0
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
