"""What people type, with the same results at both engines."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from tests.docker.conftest import IMAGE, Tool

pytestmark = pytest.mark.needs("root", "docker")


def test_run(docker: Tool) -> None:
    """`run` gives the program's output and exit code, takes its options, and leaves nothing with --rm."""
    options = ["--rm", "--network", "none", "-e", "A=1", "-w", "/tmp", "-u", "user", "--hostname", "box"]
    done = docker.run("run", *options, IMAGE, "sh", "-c", "id -un; pwd; echo $A; hostname; echo bad >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"user\n/tmp\n1\nbox\n", b"bad\n")
    assert docker.run("run", "-i", "--rm", "--network", "none", IMAGE, "cat", input=b"in\0put").stdout == b"in\0put"
    large = os.urandom(300_000)
    assert docker.run("run", "-i", "--rm", "--network", "none", IMAGE, "cat", input=large).stdout == large


@pytest.mark.parametrize(("program", "code"), [("nosuch", 127), ("/etc", 126)])
def test_run_what_cannot_run(docker: Tool, program: str, code: int) -> None:
    """A program that isn't there, or is none, gives Docker's exit codes and leaves no container."""
    done = docker.run("run", "--rm", "--name", f"cannot-{code}", "--network", "none", IMAGE, program)
    assert done.returncode == code
    assert "No such container" in docker.fails("logs", f"cannot-{code}")


def test_terminal(docker: Tool) -> None:
    """`run -it` gives a terminal of the caller's size, `exec -it` too."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    command = docker.command("run", "-it", "--rm", "--network", "none", IMAGE, "sh")
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=docker.env)
    os.close(theirs)
    os.write(ours, b"echo a$((1+1))b; tty; exit 5\n")
    seen, deadline = b"", time.monotonic() + 20
    while time.monotonic() < deadline:
        ended = process.poll() is not None  # asked first: what it wrote before is still to be read
        try:
            seen += os.read(ours, 4096)
        except OSError:
            if ended:
                break
            time.sleep(0.02)
    assert process.wait(5) == 5
    os.close(ours)
    assert b"a2b" in seen
    assert b"/dev/" in seen


def test_life(docker: Tool) -> None:
    """Start, look, exec, pause, rename, stop, start again, kill, wait, remove; the errors are Docker's."""
    script = "trap 'exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.1; done"
    key = docker.ok("run", "-d", "--name", "life", "--network", "none", "-l", "k=v", IMAGE, "sh", "-c", script)
    assert docker.ok("ps", "-q", "--no-trunc", "--filter", "label=k=v") == key
    assert docker.ok("ps", "--filter", "name=life", "--format", "{{.Names}} {{.State}}") == "life running"
    form = "{{.Name}} {{.State.Status}} {{.Config.Image}} {{json .Config.Labels}} {{.Path}}"
    assert docker.ok("inspect", "-f", form, "life") == f'/life running {IMAGE} {{"k":"v"}} sh'
    assert "is already in use by container" in docker.fails("create", "--name", "life", IMAGE)
    assert docker.ok("exec", "-e", "B=2", "life", "sh", "-c", "echo $B") == "2"
    assert docker.run("exec", "life", "sh", "-c", "exit 9").returncode == 9
    assert docker.run("exec", "-i", "life", "cat", input=b"piped").stdout == b"piped"
    docker.ok("exec", "-d", "life", "sh", "-c", "echo done > /tmp/mark")
    assert "trap" in docker.ok("top", "life")
    docker.ok("pause", "life")
    assert docker.ok("inspect", "-f", "{{.State.Status}}", "life") == "paused"
    docker.ok("unpause", "life")
    docker.ok("rename", "life", "lived")
    assert "is not running" in docker.fails("kill", docker.ok("create", "--name", "never", IMAGE))
    assert "remov" in docker.fails("rm", "lived")
    docker.ok("stop", "-t", "5", "lived")
    assert docker.ok("wait", "lived") == "3"
    assert docker.ok("ps", "-a", "--filter", "exited=3", "--format", "{{.Names}}") == "lived"
    assert docker.ok("cp", "lived:/tmp/mark", "-")
    docker.ok("start", "lived")
    docker.ok("restart", "-t", "3", "lived")
    docker.ok("kill", "-s", "KILL", "lived")
    assert docker.ok("wait", "lived") == "137"
    assert docker.ok("rm", "lived", "never").split() == ["lived", "never"]
    assert "No such container: lived" in docker.fails("inspect", "--type", "container", "lived")


def test_what_goes_at_its_end(docker: Tool, tmp_path: Path) -> None:
    """With --rm, files can be copied in before the start, and a restart isn't the end."""
    (tmp_path / "word").write_text("kept")
    docker.ok("create", "--rm", "--name", "going", "--network", "none", IMAGE, "sleep", "1000")
    docker.ok("cp", tmp_path / "word", "going:/word")
    docker.ok("start", "going")
    docker.ok("restart", "-t", "0", "going")
    assert docker.ok("exec", "going", "cat", "/word") == "kept"
    docker.ok("rm", "-f", "going")


def test_logs(docker: Tool) -> None:
    """Logs by stream, from the end, since a time, with timestamps, and followed to the end."""
    script = "for i in 1 2 3; do echo o$i; echo e$i >&2; done; sleep 1; echo last"
    docker.ok("run", "-d", "--name", "talks", "--network", "none", IMAGE, "sh", "-c", script)
    followed = docker.run("logs", "-f", "talks")
    assert (followed.stdout, followed.stderr) == (b"o1\no2\no3\nlast\n", b"e1\ne2\ne3\n")
    assert docker.run("logs", "--tail", "1", "talks").stdout == b"last\n"
    stamped = docker.ok("logs", "-t", "--tail", "1", "talks").split()
    assert stamped[0].endswith("Z")
    assert stamped[1] == "last"
    assert docker.ok("logs", "--since", stamped[0], "talks") == "last"
    assert "last" not in docker.ok("logs", "--until", "2020-01-01T00:00:00Z", "talks")
    docker.ok("rm", "talks")


def test_files(docker: Tool, tmp_path: Path) -> None:
    """`cp` in and out, of running containers and others; `diff` and `export` see what was written."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("content")
    docker.ok("create", "--name", "files", "--network", "none", IMAGE, "sleep", "60")
    docker.ok("cp", tmp_path / "d", "files:/tmp")
    docker.ok("start", "files")
    assert docker.ok("exec", "files", "cat", "/tmp/d/f") == "content"
    docker.ok("cp", "files:/tmp/d/f", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content"
    said = docker.fails("cp", "files:/nosuch", tmp_path)  # an older docker puts it in words of its own
    assert "Could not find the file" in said or "No such container:path" in said
    assert {"A /tmp/d", "A /tmp/d/f"} <= set(docker.ok("diff", "files").splitlines())
    docker.ok("export", "-o", tmp_path / "all.tar", "files")
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert "tmp/d/f" in [name.removeprefix("./") for name in tar.getnames()]
    docker.ok("rm", "-f", "files")


def test_images(docker: Tool, tmp_path: Path) -> None:
    """Build, tag, history, save, remove, load, commit; a failing step tells its code."""
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nARG WHO\nRUN echo $WHO > /who\nCMD cat /who\n")
    built = docker.ok("build", "--network", "none", "-t", "made:1", "--build-arg", "WHO=me", "--label", "l=1", tmp_path)
    assert "Successfully tagged made:1" in built
    assert docker.ok("run", "--rm", "--network", "none", "made:1") == "me"
    assert docker.ok("inspect", "-f", '{{index .Config.Labels "l"}}', "made:1") == "1"
    assert len(docker.ok("history", "-q", "made:1").split()) >= 3
    docker.ok("tag", "made:1", "made:2")
    docker.ok("save", "-o", tmp_path / "made.tar", "made:1")
    docker.ok("rmi", "made:1", "made:2")
    assert "No such image" in docker.fails("image", "inspect", "made:1")
    assert docker.ok("load", "-i", tmp_path / "made.tar") == "Loaded image: made:1"
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN exit 4\n")
    assert docker.run("build", "--network", "none", tmp_path).returncode == 4
    docker.ok("run", "--name", "source", "--network", "none", IMAGE, "touch", "/new")
    docker.ok("commit", "-c", "CMD ls /new", "-m", "said", "source", "made:3")
    assert docker.ok("run", "--rm", "--network", "none", "made:3") == "/new"
    docker.ok("rm", "source")
    docker.ok("rmi", "-f", "made:1", "made:3")
    assert "made" not in docker.ok("images", "--format", "{{.Repository}}")


def test_volumes(docker: Tool, tmp_path: Path) -> None:
    """Named, anonymous, bind and tmpfs mounts; a volume in use stays."""
    docker.ok("volume", "create", "--label", "a=b", "data")
    docker.ok("run", "--rm", "--network", "none", "-v", "data:/d", IMAGE, "sh", "-c", "echo x > /d/f")
    mounts = ["-v", "data:/d:ro", "-v", f"{tmp_path}:/b", "--tmpfs", "/t:size=1m", "-v", "/anon"]
    docker.ok("run", "-d", "--name", "mounts", "--network", "none", *mounts, IMAGE, "sleep", "60")
    assert docker.ok("exec", "mounts", "cat", "/d/f") == "x"
    assert docker.run("exec", "mounts", "touch", "/d/g").returncode
    docker.ok("exec", "mounts", "touch", "/b/made")
    assert (tmp_path / "made").exists()
    shown = json.loads(docker.ok("inspect", "-f", "{{json .Mounts}}", "mounts"))
    assert {(each["Type"], each["Destination"]) for each in shown} == {
        ("volume", "/d"),
        ("bind", "/b"),
        ("volume", "/anon"),
    }
    assert "in use" in docker.fails("volume", "rm", "data")
    docker.ok("rm", "-f", "-v", "mounts")
    assert docker.ok("volume", "ls", "-q", "--filter", "label=a=b") == "data"
    docker.ok("volume", "rm", "data")
    assert "no such volume" in docker.fails("volume", "inspect", "data").lower()


def test_limits_are_set_and_changed(docker: Tool) -> None:
    """Limits are applied, shown by `inspect`, and changed by `update`; `stats` sees them."""
    options = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "--read-only", "--cap-drop", "ALL", "--init"]
    docker.ok("run", "-d", "--name", "bound", "--network", "none", *options, IMAGE, "sleep", "60")
    form = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.ReadonlyRootfs}}"
    assert docker.ok("inspect", "-f", form, "bound") == f"{64 << 20} 500000000 50 true"
    docker.ok("update", "--memory", "96m", "--memory-swap", "-1", "--restart", "on-failure:2", "bound")
    assert docker.ok("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "bound") == "on-failure"
    assert docker.ok("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "bound").endswith("/ 96MiB")
    docker.ok("rm", "-f", "bound")


def test_events(docker: Tool) -> None:
    """What happened is told afterwards, chosen by filters, and then what happens."""
    begin = f"{time.time() - 1:.3f}"
    docker.ok("run", "--rm", "--name", "heard", "--network", "none", "-l", "who=heard", IMAGE, "true")
    command = docker.command("events", "--since", begin, "--filter", "label=who=heard", "--format", "{{.Action}}")
    wanted = ["create", "start", "die", "destroy"]
    told: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=docker.env, text=True) as process:
        assert process.stdout
        for line in process.stdout:  # dockerd may tell of the removal after the command has returned
            told += [line.strip()] if line.strip() in wanted else []
            if line.strip() == "destroy":
                break
        process.terminate()
    assert told == wanted
    options = [
        "--since",
        begin,
        "--until",
        f"{time.time():.3f}",
        "--filter",
        "container=heard",
        "--filter",
        "event=die",
    ]
    assert docker.ok("events", *options, "--format", "{{.Action}} {{.Actor.Attributes.exitCode}}") == "die 0"


def test_prune(docker: Tool) -> None:
    """Stopped containers, unused volumes and networks go."""
    docker.ok("create", "--name", "idle", "-l", "mine=1", IMAGE)
    docker.ok("container", "prune", "-f", "--filter", "label=mine=1")
    assert "No such container" in docker.fails("logs", "idle")
    docker.ok("volume", "prune", "-f")
    docker.ok("network", "prune", "-f")
    docker.ok("image", "prune", "-f")
    assert "Images" in docker.ok("system", "df")


def test_health(docker: Tool) -> None:
    """A health check makes a container healthy, which `ps`, its filter and `inspect` tell."""
    line = [
        "--health-cmd",
        "test -e /ok || { echo missing; exit 1; }",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
    ]
    docker.ok("run", "-d", "--name", "well", "--network", "none", *line, IMAGE, "sleep", "600")
    _becomes(docker, "unhealthy")
    state = json.loads(docker.ok("inspect", "--format", "{{json .State.Health}}", "well"))
    assert state["FailingStreak"] >= 1
    assert (state["Log"][-1]["ExitCode"], state["Log"][-1]["Output"]) == (1, "missing\n")
    docker.ok("exec", "well", "touch", "/ok")
    _becomes(docker, "healthy")
    assert docker.ok("ps", "--filter", "health=healthy", "--format", "{{.Names}} {{.Status}}").startswith("well Up ")
    assert docker.ok("ps", "--filter", "health=unhealthy", "--quiet") == ""
    assert json.loads(docker.ok("inspect", "--format", "{{json .Config.Healthcheck.Test}}", "well"))[0] == "CMD-SHELL"
    docker.ok("rm", "-f", "well")


def _becomes(docker: Tool, wanted: str) -> None:
    deadline = time.monotonic() + 20
    while docker.ok("inspect", "--format", "{{.State.Health.Status}}", "well") != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.1)
