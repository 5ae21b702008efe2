"""`trivet-runtime run` for the second time: the stored plan is carried out if nothing it depends on has changed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runtime import COMMAND, GROUP, Runtime

THINKER = b"trivet.runtime.program"


def run(runtime: Runtime, *words: str | Path, **options: Any) -> tuple[int, bytes, bool]:
    """Run a container; returns status and output, and whether it went without those modules that think."""
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = runtime("run", *words, runtime.id, env=environment, **options)
    assert not (runtime.root / runtime.id).exists() or "--detach" in words
    return done.returncode, done.stdout, THINKER not in done.stderr


def groups(runtime: Runtime) -> list[Path]:
    """List what is there of the container's control groups."""
    return list(Path("/sys/fs/cgroup").glob(f"*/{GROUP}/{runtime.id}"))


def test_the_second_run_is_a_replay(runtime: Runtime) -> None:
    """It ends with the same output and status, under another id too, and leaves nothing."""
    runtime.configure("sh", "-c", "hostname; cat /proc/self/status | grep -e Cap -e Seccomp: -e NoNew; exit 7")
    first, second = run(runtime), run(runtime)
    assert first[0] == 7
    assert (first[2], second[2]) == (False, True)
    assert first[:2] == second[:2]
    runtime.id += "-other"
    assert run(runtime) == second
    assert groups(runtime) == []


@pytest.mark.parametrize("users", [False, True])
def test_the_container_is_the_same(runtime: Runtime, users: bool) -> None:
    """Its groups, mounts, limits and users are those of the first run."""
    mapping = [{"containerID": 0, "hostID": 0, "size": 1 << 16}]
    more = {"linux": {"uidMappings": mapping, "gidMappings": mapping}} if users else {}
    if users:
        spaces = [*runtime.example()["linux"]["namespaces"], {"type": "user"}]
        more["linux"] |= {"namespaces": spaces}
    script = "cat /proc/self/cgroup /proc/self/uid_map /proc/self/limits; cut -d' ' -f4- /proc/self/mountinfo | wc -l"
    runtime.change(more | {"root": {"readonly": True}}, "sh", "-c", script)
    first, second = run(runtime), run(runtime)
    assert first[0] == 0, first
    assert (first[2], second[2]) == (False, True)
    assert first[1] == second[1]


def reconfigure(runtime: Runtime) -> None:
    runtime.configure("echo", "changed")


def replace_root(runtime: Runtime) -> None:
    root = runtime.bundle / "rootfs"
    subprocess.run(["cp", "-a", root, f"{root}-2"], check=True)
    root.rename(f"{root}-1")
    Path(f"{root}-2").rename(root)


def spoil(runtime: Runtime) -> None:
    record = next((runtime.root / "plans@").iterdir())
    record.write_bytes(record.read_bytes()[:-20])


def open_up(runtime: Runtime) -> None:
    next((runtime.root / "plans@").iterdir()).chmod(0o644)


@pytest.mark.parametrize("change", [reconfigure, replace_root, spoil, open_up])
def test_what_has_changed_is_thought_over(runtime: Runtime, change: Callable[[Runtime], None]) -> None:
    """Another configuration, another root, a spoilt record or one that others may read: no replay, the same result."""
    runtime.configure("echo", "hello")
    run(runtime)
    assert run(runtime) == (0, b"hello\n", True)
    change(runtime)
    assert run(runtime) == (0, b"changed\n" if change is reconfigure else b"hello\n", False)


def test_limits_of_the_caller_have_changed(runtime: Runtime) -> None:
    """With other limits of its own the runtime looks again at which ones it can give."""
    runtime.configure("echo", "hello")
    run(runtime)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 500), hard))

    assert run(runtime, preexec_fn=lower) == (0, b"hello\n", False)


def test_a_program_that_has_gone(runtime: Runtime) -> None:
    """A replay that fails is undone, and the ordinary way says what is wrong."""
    runtime.configure("/bin/gone")
    program = runtime.bundle / "rootfs/bin/gone"
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(0o755)
    run(runtime)
    assert run(runtime) == (0, b"here\n", True)
    program.unlink()
    done = runtime("run", runtime.id)
    assert done.returncode == 1
    assert b"/bin/gone" in done.stderr
    assert groups(runtime) == []
    assert not (runtime.root / runtime.id).exists()


def test_other_verbs_know_a_replayed_container(runtime: Runtime) -> None:
    """A detached one has a state, a pid file and programs beside its own, and is killed and deleted."""
    runtime.configure("sh", "-c", "test -e /stay && exec sleep 600")
    run(runtime)
    (runtime.bundle / "rootfs/stay").touch()
    pid_file = runtime.bundle / "pid"
    status, _, replayed = run(runtime, "--detach", "--pid-file", pid_file)
    assert (status, replayed) == (0, True)
    state = runtime.json("state", runtime.id)
    assert (state["status"], state["pid"]) == ("running", int(pid_file.read_text()))
    assert runtime("exec", runtime.id, "echo", "inside").stdout == b"inside\n"
    assert runtime("run", runtime.id).returncode == 1  # the id is taken
    assert runtime("kill", runtime.id, "KILL").returncode == 0
    runtime.until("stopped")
    assert runtime("delete", runtime.id).returncode == 0
    assert groups(runtime) == []


def test_who_is_left_behind(runtime: Runtime) -> None:
    """What a replayed program leaves running, without a pid namespace of its own, ends with it."""
    spaces = [one for one in runtime.example()["linux"]["namespaces"] if one["type"] != "pid"]
    runtime.change({"linux": {"namespaces": spaces}}, "sh", "-c", "sleep 1000 & echo $!")
    for replayed in (False, True):
        status, output, quick = run(runtime)
        assert (status, quick) == (0, replayed)
        assert not Path(f"/proc/{int(output)}/exe").exists()
        assert groups(runtime) == []


def test_signals_reach_a_replayed_program(runtime: Runtime) -> None:
    """What the runtime is told to do its program is told."""
    runtime.configure(
        "sh", "-c", "trap 'exit 9' TERM; echo up; test -e /stay || exit 0; while true; do sleep 0.1; done"
    )
    run(runtime)
    (runtime.bundle / "rootfs/stay").touch()
    words: list[str | Path] = [COMMAND, "--root", runtime.root, "run", runtime.id]
    with subprocess.Popen(words, cwd=runtime.bundle, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"up\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 9


def create(runtime: Runtime, *words: str | Path) -> tuple[int, bytes, bool]:
    """Create a container, as `run` does; whether no module had to think."""
    done = runtime("create", *words, runtime.id, env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    return done.returncode, done.stdout, THINKER not in done.stderr


def test_the_third_create_is_a_replay(runtime: Runtime) -> None:
    """An engine's bundle comes once; of one that comes again the plan is kept, and other verbs know what it made."""
    runtime.configure("sh", "-c", "hostname; exec sleep 600")
    pid_file = runtime.bundle / "pid"
    for replayed in (False, False, True):
        assert create(runtime, "--pid-file", pid_file) == (0, b"", replayed)
        state = runtime.json("state", runtime.id)
        assert (state["status"], state["pid"]) == ("created", int(pid_file.read_text()))
        assert runtime("create", runtime.id).returncode == 1  # the id is taken
        assert runtime("start", runtime.id).returncode == 0
        runtime.until("running")
        assert runtime("exec", runtime.id, "echo", "inside").stdout == b"inside\n"
        assert runtime("kill", runtime.id, "KILL").returncode == 0
        runtime.until("stopped")
        assert runtime("delete", runtime.id).returncode == 0
        assert groups(runtime) == []


def test_a_created_one_can_be_deleted(runtime: Runtime) -> None:
    """The program of a replayed create waits; deleted, nothing is left of it."""
    runtime.configure("sleep", "600")
    for replayed in (False, False, True):
        assert create(runtime) == (0, b"", replayed)
        pid = runtime.json("state", runtime.id)["pid"]
        assert runtime("delete", "--force", runtime.id).returncode == 0
        assert groups(runtime) == []
        assert not Path(f"/proc/{pid}/exe").exists()
