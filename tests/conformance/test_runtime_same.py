"""The front in C answers what the runtime in Python beside it answers, whatever it is asked.

`TRIVET_FUZZ` says how many questions of each kind.
"""

from __future__ import annotations

import json
import os
import string
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runtime import COMMAND, Runtime

pytestmark = pytest.mark.needs("root")
FULL = COMMAND.with_name("trivet-runtime-full")
TELL = (
    'for each in "$0" "$@"; do echo "<$each>"; done; env | sort; pwd; grep -E "^(Cap|NoNew|Seccomp:)" /proc/self/status'
)
some = settings(
    max_examples=int(os.environ.get("TRIVET_FUZZ", "12")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ODD = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["", "é\u2028", "\ud83d\ude00", "a\\b", '"', "\n", "\x7f", "=", "A=b", "x" * 5000, "/", "..", "\x00"]
    ),
)
JUNK = st.one_of(st.none(), st.booleans(), st.integers(-5, 1 << 40), ODD, st.lists(ODD, max_size=2), st.just({}))


@pytest.fixture
def running(runtime: Runtime) -> Runtime:
    """A container that sleeps."""
    runtime.configure("sleep", "1000")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    return runtime


def both(runtime: Runtime, *words: str | Path) -> None:
    """Ask both, the front once more: from then on it knows what was asked before."""
    answers = [_asked(runtime, command, *words) for command in (FULL, COMMAND, COMMAND)]
    assert answers[0] == answers[1] == answers[2]


def _asked(runtime: Runtime, command: Path, *words: str | Path) -> tuple[int, bytes, bytes]:
    try:
        whole = [command, "--root", runtime.root, *words]
        done = subprocess.run(whole, cwd=runtime.bundle, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    except ValueError as error:  # no command line can hold a NUL
        return 0, b"", str(error).encode()
    return done.returncode, done.stdout, done.stderr


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Write a process as JSON: an ordinary one, changed in a few places, spelled in one of many ways."""
    process: dict[str, Any] = {
        "args": ["sh", "-c", TELL, '\b\f\n\r\t\\/"', *draw(st.lists(ODD, max_size=3))],
        "env": ["PATH=/bin", *draw(st.lists(ODD, max_size=2))],
        "cwd": draw(st.sampled_from(["/", "/tmp", "/data/../tmp", "/nowhere", "tmp", ""])),
        "user": {"uid": draw(st.sampled_from([0, 0, 1000, -1, 1 << 33]))},
    }
    for key in draw(st.lists(st.sampled_from(["args", "env", "cwd", "user", "terminal", "more", "umask"]), max_size=1)):
        process[key] = draw(JUNK)
    text = json.dumps(process, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    change = draw(st.sampled_from(["", "", "", "twice", "cut", "behind", "byte", "number"]))
    if change == "twice":
        text = text[:-1] + ', "args": ["echo", "twice"]}'
    elif change == "cut":
        text = text[: draw(st.integers(0, len(text)))]
    elif change == "behind":
        text += draw(st.sampled_from(["x", " ", "\x00", "{}"]))
    elif change == "byte":
        place = draw(st.integers(0, len(text) - 1))
        text = text[:place] + draw(st.sampled_from(string.printable)) + text[place + 1 :]
    elif change == "number":
        text = text.replace('"uid": 0', f'"uid": {draw(st.sampled_from(["0.0", "00", "-0", "1e0", "0x0"]))}')
    return text


@some
@given(text=documents())
def test_processes(running: Runtime, text: str) -> None:
    """A process as JSON runs alike, or is refused in the same words."""
    path = running.bundle / "process.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    both(running, "exec", "--process", path, running.id)


WORDS = st.sampled_from(
    [
        *("--env", "--env=A=b", "-e", "A=b", "--cwd", "/tmp", "--cwd=/nowhere", "--user", "0", "1000:5", "-u", "ann"),
        *(
            "--",
            "-x",
            "--no-new-privs",
            "--cap",
            "CAP_KILL",
            "CAP_NONE",
            "--pid-file",
            "",
            "echo",
            "é",
            "nothing-like-it",
        ),
    ]
)


@some
@given(words=st.lists(WORDS, max_size=4), arguments=st.lists(ODD, max_size=2))
def test_programs(running: Runtime, words: list[str], arguments: list[str]) -> None:
    """A program by its words, too, whichever options precede it."""
    both(running, "exec", *words, running.id, "echo", *arguments)


@some
@given(
    verb=st.sampled_from(["state", "kill", "start", "delete"]),
    words=st.lists(
        st.sampled_from(["", "0", "CONT", "SIGCONT", "sigcont", "99", "-1", "x", "--all", "-a", "é"]), max_size=3
    ),
    name=st.one_of(st.none(), st.none(), st.sampled_from(["", "nobody", "../x", "-x", "--", "é", "x" * 5000])),
    before=st.booleans(),
)
def test_verbs(running: Runtime, verb: str, words: list[str], name: str | None, before: bool) -> None:
    """So do the other verbs, of a container that runs and of names that are none."""
    both(running, "state", running.id)
    place = [running.id if name is None else name]
    both(running, verb, *((*words, *place) if before else (*place, *words)))
    assert running.json("state", running.id)["status"] == "running"
