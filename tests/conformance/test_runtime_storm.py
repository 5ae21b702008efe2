"""Callers in one another's way, and a runtime that is killed at any moment: nothing is half there, nothing is left."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
from tests.runtime import COMMAND, Runtime, until

VERBS = (
    *(("run", "--detach"), ("create",), ("start",), ("kill",), ("delete", "--force"), ("delete",), ("state",)),
    *(("pause",), ("resume",), ("exec",), ("update", "--pids-limit", "30")),
)
BEHIND = {"kill": ("KILL",), "exec": ("true",)}
CALLERS, CALLS, KILLS = 4, 8, 16


def running(mark: str) -> list[str]:
    """List the processes whose command line ends with a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if line.endswith(mark.encode() + b"\0"):
            found.append(path.parent.name)
    return found


def clean(runtime: Runtime, mark: str) -> bool:
    """Tell whether nothing is left of any container."""
    mounts = Path("/proc/self/mountinfo").read_text()
    return runtime.clean() and running(mark) == [] and str(runtime.root) not in mounts


@pytest.fixture
def mark(runtime: Runtime) -> str:
    """What the program is told, by which it is found again."""
    number = str(random.randrange(10**8, 10**9))
    runtime.change({"linux": {"resources": {"pids": {"limit": 50}}}}, "sleep", number)
    return number


def test_callers_in_one_anothers_way(runtime: Runtime, mark: str) -> None:
    """Verbs for one id at once each succeed or fail by a sentence; the last delete leaves nothing."""
    answers: Counter[tuple[str, int]] = Counter()
    odd: list[object] = []

    def call(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(CALLS):
            verb = chosen.choice(VERBS)
            done = runtime(*verb, runtime.id, *BEHIND.get(verb[0], ()))
            answers[verb[0], done.returncode] += 1
            lines = [line for line in done.stderr.decode().splitlines() if "hint" not in line and "warning" not in line]
            if b"Traceback" in done.stderr or len(lines) > 1 or bool(lines) != bool(done.returncode):
                odd.append(done)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in random.sample(range(1 << 30), CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert odd == []
    assert sum(answers.values()) == CALLERS * CALLS
    assert runtime("delete", "--force", runtime.id).returncode == 0
    until(lambda: clean(runtime, mark))


@pytest.mark.parametrize("verb", [("run", "--detach"), ("create",)], ids=["run", "create"])
def test_killed_at_any_moment(runtime: Runtime, mark: str, verb: tuple[str, ...]) -> None:
    """Whenever the runtime is killed, `delete --force` takes away what it had made."""
    for step in range(KILLS):
        command: list[str | Path] = [COMMAND, "--root", runtime.root, *verb, runtime.id]
        nothing = subprocess.DEVNULL
        with subprocess.Popen(command, cwd=runtime.bundle, stdin=nothing, stdout=nothing, stderr=nothing) as process:
            try:
                process.wait(step**2 * 0.003)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        done = runtime("delete", "--force", runtime.id)
        assert (done.returncode, done.stderr) == (0, b""), step
        until(lambda: clean(runtime, mark))
