"""`trivet-runtime` in runc's place: below dockerd and its containerd, and below podman and its conmon."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests import newer
from tests.busybox import busybox_tar
from tests.criu import criu as criu
from tests.runtime import COMMAND, until

GROUP = f"trivet-runtime-callers-{os.getpid()}"
IMAGE = "localhost/busybox:test"
HUNGRY = "sleep 1; exec dd if=/dev/zero of=/dev/null bs=64M count=1"


class Caller:
    """A command that starts containers with our runtime, and its options."""

    def __init__(self, command: Sequence[str | Path], run: Sequence[str]) -> None:
        self.command: list[str | Path] = list(command)
        self.run_options = [*run, "--network", "none"]

    def __call__(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run([*self.command, *words], input=stdin, stdout=out, stderr=err, timeout=90)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(words, done.returncode, out.read(1 << 20), err.read(1 << 20))

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a container to its end."""
        return self("run", "--rm", *self.run_options, *words, stdin=stdin)

    def text(self, *words: str) -> str:
        """Run and give the output."""
        done = self(*words)
        assert done.returncode == 0, done
        return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A short directory, everything below it unmounted and removed in the end."""
    path = Path(tempfile.mkdtemp(prefix="trc-", dir="/run"))
    yield path
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{path}/")]):
        subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(path, ignore_errors=True)
    for top in Path("/sys/fs/cgroup").glob(f"*/{GROUP}"):
        for group in (*sorted(top.glob("**/*/"), reverse=True), top):
            with contextlib.suppress(OSError):
                group.rmdir()


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no program {program}")


@pytest.fixture(scope="module")
def docker(place: Path) -> Iterator[Caller]:
    """A dockerd of the test's own that knows our runtime; it touches none of the host's network."""
    _need("docker", "dockerd")
    socket = f"unix://{place}/docker.sock"
    with (place / "docker.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                *("dockerd", "--host", socket, "--data-root", place / "docker", "--exec-root", place / "exec"),
                *("--pidfile", place / "pid", "--cgroup-parent", GROUP, "--add-runtime", f"trivet={COMMAND}"),
                *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"),
                *("--storage-driver", "vfs", "--experimental"),  # for checkpoints
            ],
            env=os.environ | {"PATH": f"{newer.PLACE / 'criu'}:{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
        )
    caller = Caller(["docker", "--host", socket], ["--runtime", "trivet"])
    try:
        until(lambda: daemon.poll() is not None or caller("info").returncode == 0, 40)
        if daemon.poll() is not None:
            pytest.skip(f"dockerd doesn't start here: {(place / 'docker.log').read_text()[-300:]}")
        assert caller("import", "-", IMAGE, stdin=busybox_tar()).returncode == 0
        yield caller
    finally:
        if names := caller("ps", "--all", "--quiet").stdout.decode().split():
            caller("rm", "--force", *names)
        daemon.terminate()
        daemon.wait(timeout=30)


@pytest.fixture(scope="module")
def podman(place: Path) -> Iterator[Caller]:
    """A podman with a store of the test's own."""
    _need("podman", "conmon")
    command: list[str | Path] = [
        *("podman", "--root", place / "podman", "--runroot", place / "podrun", "--storage-driver", "vfs"),
        *("--runtime", COMMAND, "--events-backend", "file", "--cgroup-manager", "cgroupfs"),
    ]
    caller = Caller(command, ["--cgroup-parent", GROUP])
    imported = caller("import", "-", IMAGE, stdin=busybox_tar())
    if imported.returncode:
        pytest.skip(f"podman doesn't work here: {imported.stderr.decode()[-300:]}")
    yield caller
    caller("rm", "--force", "--all", "--time", "0")


@pytest.fixture(params=["docker", "podman"])
def caller(request: pytest.FixtureRequest) -> Caller:
    """Either of them."""
    found: Caller = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def running(caller: Caller) -> Iterator[str]:
    """A container in the background that says something and then sleeps."""
    name = f"trivet-{os.urandom(4).hex()}"
    script = "echo out; echo err >&2; exec sleep 600"
    caller.text("run", "--detach", "--name", name, *caller.run_options, IMAGE, "sh", "-c", script)
    yield name
    caller("rm", "--force", name)


def test_run(caller: Caller) -> None:
    """A container has input and output, its user and its exit code."""
    done = caller.run(
        "--interactive", "--user", "1000:29", IMAGE, "sh", "-c", "cat; id -u; id -g; exit 7", stdin=b"in\n"
    )
    assert (done.returncode, done.stdout) == (7, b"in\n1000\n29\n"), done


def test_options_reach_the_container(caller: Caller, tmp_path: Path) -> None:
    """Limits, mounts, names and rights are what was asked for."""
    (tmp_path / "file").write_text("shown")
    script = """
        cat /sys/fs/cgroup/memory/memory.limit_in_bytes; cat /sys/fs/cgroup/pids/pids.max; hostname; cat /data/file
        touch /data/new 2>/dev/null || echo refused; grep CapEff /proc/self/status; touch /new 2>/dev/null || echo fixed
    """
    done = caller.run(
        *("--memory", "64m", "--pids-limit", "77", "--hostname", "ours", "--volume", f"{tmp_path}:/data:ro"),
        *("--cap-drop", "all", "--read-only", "--tmpfs", "/scratch", "--ulimit", "nofile=64:64", "--init=false"),
        *(IMAGE, "sh", "-c", script),
    )
    assert done.returncode == 0, done
    assert done.stdout.decode().split("\n")[:7] == [
        *(str(64 << 20), "77", "ours", "shownrefused"),
        *("CapEff:\t0000000000000000", "fixed", ""),
    ]


def test_terminal(caller: Caller) -> None:
    """A container with a terminal gets one: the caller holds its other side."""
    done = caller.run("--tty", IMAGE, "sh", "-c", "tty; test -c /dev/console && echo console")
    assert done.returncode == 0, done
    assert done.stdout.split() == [b"/dev/pts/0", b"console"]


def test_life(caller: Caller, running: str) -> None:
    """logs, exec, pause, update, stop and start again."""
    until(lambda: "out" in caller.text("logs", running))
    done = caller("exec", "--interactive", running, "sh", "-c", "cat; exit 9", stdin=b"in")
    assert (done.returncode, done.stdout) == (9, b"in"), done
    assert caller("exec", "--tty", running, "tty").stdout.strip() == b"/dev/pts/0"
    assert "sleep 600" in caller.text("top", running)
    caller.text("pause", running)
    assert "aused" in caller.text("ps", "--all", "--format", "{{.Status}}", "--filter", f"name={running}")
    caller.text("unpause", running)
    caller.text("stop", "--time", "1", running)
    assert caller.text("inspect", "--format", "{{.State.ExitCode}}", running) == "137"
    caller.text("start", running)
    caller.text("kill", "--signal", "KILL", running)
    assert caller.text("wait", running) == "137"


def test_exec_again(caller: Caller, running: str, place: Path) -> None:
    """What they ask of exec is known again: the second time the front does it, without Python."""
    identity = caller.text("inspect", "--format", "{{.Id}}", running)
    homes = [place / "exec/runtime-runc/moby", Path("/run/trivet-runtime")]
    kept = []
    for word in ("one", "two", "three"):
        assert caller.text("exec", running, "echo", word) == word
        templates = [path for home in homes for path in home.glob(f"{identity}/exec@*")]
        kept.append({path: path.stat().st_mtime_ns for path in templates})
    assert kept[0]
    assert kept[1] == kept[2]


def test_update(docker: Caller) -> None:
    """Docker's update changes the limits of a running container."""
    name = docker.text("run", "--detach", *docker.run_options, IMAGE, "sleep", "600")
    docker.text("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50", "--cpus", "0.5", name)
    files = (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    )
    assert docker.text("exec", name, "cat", *files.split()).split() == [str(64 << 20), "50", "50000"]


def test_what_docker_measures(docker: Caller) -> None:
    """Docker's statistics know the limits, its events the end for want of memory, its restarts the exit code."""
    name = docker.text(
        "run", "--detach", "--memory", "64m", "--pids-limit", "9", *docker.run_options, IMAGE, "sleep", "600"
    )
    measured = docker.text("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name)
    assert re.fullmatch(r"[\d.]+[KM]iB / 64MiB 1", measured), measured
    begun = str(int(time.time()))
    limits = ("--memory", "16m", "--memory-swap", "16m")
    hungry = docker.text("run", "--detach", *limits, *docker.run_options, IMAGE, "sh", "-c", HUNGRY)
    assert docker.text("wait", hungry) == "137"
    until(lambda: docker.text("inspect", "--format", "{{.State.OOMKilled}}", hungry) == "true")
    words = docker.text(
        "events", "--since", begun, "--until", str(int(time.time()) + 1), "--filter", f"container={hungry}",
        "--format", "{{.Action}}",
    ).split()  # fmt: skip
    assert [word for word in words if word != "attach"] == ["create", "start", "oom", "die"]
    again = docker.text(
        "run", "--detach", "--restart", "on-failure:2", *docker.run_options, IMAGE, "sh", "-c", "exit 3"
    )
    until(lambda: docker.text("inspect", "--format", "{{.RestartCount}} {{.State.Running}}", again) == "2 false", 30)
    assert docker.text("inspect", "--format", "{{.State.ExitCode}}", again) == "3"


def test_health(caller: Caller) -> None:
    """A health check is a program that is added, by docker's own clock or by podman's verb."""
    check = ("--health-cmd", "test -e /tmp/well", "--health-interval", "1s", "--health-retries", "1")
    name = caller.text("run", "--detach", *check, *caller.run_options, IMAGE, "sleep", "600")
    format_ = ("inspect", "--format", "{{.State.Health.Status}}")
    for wanted, code in (("unhealthy", 1), ("healthy", 0)):
        if caller.command[0] == "podman":
            assert caller("healthcheck", "run", name).returncode == code
        until(lambda wanted=wanted: caller.text(*format_, name) == wanted, 30)  # type: ignore[misc]
        caller.text("exec", name, "touch", "/tmp/well")
    caller.text("rm", "--force", name)


def test_pod(podman: Caller) -> None:
    """The containers of a pod have names, network and shared memory in common, and end with it."""
    infra = ("--infra-image", IMAGE, "--infra-command", "/bin/sleep 600", "--network", "none", "--hostname", "together")
    podman.text("pod", "create", "--name", "ours", "--cgroup-parent", GROUP, *infra)
    options = ("--detach", "--pod", "ours")
    server = podman.text("run", *options, IMAGE, "sh", "-c", "echo shared | nc -l -p 7000")
    ask = "until nc 127.0.0.1 7000; do sleep 0.1; done; hostname"
    done = podman("run", "--rm", "--pod", "ours", IMAGE, "sh", "-c", ask)
    assert done.stdout.split() == [b"shared", b"together"], done
    names = [
        podman.text("exec", podman.text("run", *options, IMAGE, "sleep", "600"), "readlink", "/proc/self/ns/ipc")
        for _ in (1, 2)
    ]
    assert names[0] == names[1]
    podman.text("wait", server)
    podman.text("pod", "pause", "ours")
    podman.text("pod", "unpause", "ours")
    podman.text("pod", "stop", "--time", "1", "ours")
    podman.text("pod", "rm", "--force", "ours")
    assert podman.text("ps", "--all", "--quiet", "--filter", "pod=ours") == ""


def test_checkpoint(podman: Caller, criu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman saves a container's processes and brings them back; a counter in memory goes on."""
    monkeypatch.setenv("PATH", f"{criu.parent}:{os.environ['PATH']}")
    script = "i=0; while sleep 0.1; do i=$((i+1)); echo $i >/tmp/new; mv /tmp/new /tmp/count; done"
    name = podman.text("run", "--detach", *podman.run_options, IMAGE, "sh", "-c", script)
    until(lambda: int(podman("exec", name, "cat", "/tmp/count").stdout or 0) > 5)
    podman.text("container", "checkpoint", "--keep", name)
    assert podman.text("inspect", "--format", "{{.State.Checkpointed}}", name) == "true"
    podman.text("container", "restore", name)
    back = int(podman.text("exec", name, "cat", "/tmp/count"))
    assert back > 5
    until(lambda: int(podman("exec", name, "cat", "/tmp/count").stdout or 0) > back)
    podman.text("rm", "--force", "--time", "0", name)


def test_docker_checkpoint(docker: Caller, criu: Path) -> None:
    """Docker saves a container's processes and starts it from there; a counter in memory goes on."""
    script = "i=0; while sleep 0.1; do i=$((i+1)); echo $i >/tmp/new; mv /tmp/new /tmp/count; done"
    name = docker.text("run", "--detach", *docker.run_options, IMAGE, "sh", "-c", script)
    until(lambda: int(docker("exec", name, "cat", "/tmp/count").stdout or 0) > 5)
    docker.text("checkpoint", "create", name, "one")
    until(lambda: docker.text("inspect", "--format", "{{.State.Running}}", name) == "false")
    assert docker.text("checkpoint", "ls", name).split()[-1] == "one"
    # dockerd says that it has ended before containerd has forgotten it, and refuses meanwhile
    until(lambda: docker("start", "--checkpoint", "one", name).returncode == 0)
    back = int(docker.text("exec", name, "cat", "/tmp/count"))
    assert back > 5
    until(lambda: int(docker("exec", name, "cat", "/tmp/count").stdout or 0) > back)


def test_users_of_its_own(podman: Caller) -> None:
    """Podman's user namespaces: root inside is nobody outside."""
    done = podman.run("--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000", IMAGE, "cat", "/proc/self/uid_map")
    assert done.stdout.split() == [b"0", b"100000", b"1000"], done


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/no/such/program", 127), ("/etc", 126)])
def test_programs_that_cannot_be_run(caller: Caller, program: str, code: int) -> None:
    """What isn't there is 127, what can't be executed 126."""
    done = caller.run(IMAGE, program)
    assert done.returncode == code, done
    assert program in done.stderr.decode()
