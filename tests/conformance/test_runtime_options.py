"""What runc's callers pass on the command line: sockets, descriptors, pid files, logs; update and events."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.case import ONLY_UNIFIED
from tests.runtime import GROUP, Runtime, groups, until


def test_console_socket(runtime: Runtime) -> None:
    """A detached program with a terminal: its other side comes to the console socket."""
    runtime.change({}, "sh", "-c", "tty; read line; echo got $line")
    config = json.loads((runtime.bundle / "config.json").read_text())
    config["process"] |= {"terminal": True}
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    path = runtime.root / "console"
    assert b"--console-socket" in runtime("create", runtime.id).stderr
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert runtime("create", "--console-socket", path, runtime.id).returncode == 0
        connection, _ = server.accept()
        with connection:
            _, [master], _, _ = socket.recv_fds(connection, 4096, 1)
    assert runtime("start", runtime.id).returncode == 0
    os.write(master, b"typed\n")
    until(lambda: runtime.json("state", runtime.id)["status"] == "stopped")
    said = os.read(master, 4096)
    os.close(master)
    assert b"/dev/pts/0" in said
    assert b"got typed" in said
    path.unlink()


def test_console_socket_nobody_listens_at(runtime: Runtime) -> None:
    """Without a listener nothing is left of the container."""
    runtime.change({}, "true")
    config = json.loads((runtime.bundle / "config.json").read_text())
    config["process"] |= {"terminal": True}
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    done = runtime("create", "--console-socket", runtime.root / "no", runtime.id)
    assert done.returncode == 1
    assert b"hand the terminal over" in done.stderr
    assert runtime.clean()


def holding(runtime: Runtime, *words: str, **variables: str) -> str:
    """Run the command with descriptors 3 and 4 open on files; gives what it wrote to standard output."""
    shell = ["sh", "-c", 'exec "$@" 3>three 4>four', "sh", str(runtime.command), "--root", str(runtime.root)]
    done = subprocess.run(
        [*shell, *words], cwd=runtime.bundle, capture_output=True, timeout=60, env=os.environ | variables, text=True
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_preserved_descriptors(runtime: Runtime, verb: str) -> None:
    """The program has the descriptors that were asked for, and no other."""
    script = ["sh", "-c", "echo three >&3; ls /proc/self/fd | wc -l; (echo four >&4) 2>/dev/null || echo none"]
    runtime.change({}, *(script if verb == "run" else ["sleep", "60"]))
    if verb == "exec":
        assert runtime("run", "--detach", runtime.id).returncode == 0
    words = [runtime.id] if verb == "run" else [runtime.id, *script]
    said = holding(runtime, verb, "--preserve-fds", "1", *words)
    assert said.split() == ["5", "none"]  # three streams, the one given, and ls's own
    assert ((runtime.bundle / "three").read_text(), (runtime.bundle / "four").read_text()) == ("three\n", "")


def test_sockets_of_a_service_manager(runtime: Runtime) -> None:
    """LISTEN_FDS are passed on, and the program is told."""
    runtime.change({}, "sh", "-c", "echo $LISTEN_FDS $LISTEN_PID >&4")
    holding(runtime, "run", runtime.id, LISTEN_FDS="2")
    assert (runtime.bundle / "four").read_text() == "2 1\n"


def test_keep_and_pid_file(runtime: Runtime) -> None:
    """--keep leaves a stopped container; --pid-file is written."""
    runtime.change({}, "true")
    assert runtime("run", "--keep", "--pid-file", "pid", runtime.id).returncode == 0
    assert int((runtime.bundle / "pid").read_text()) > 0
    assert runtime.json("state", runtime.id)["status"] == "stopped"
    assert runtime("delete", runtime.id).returncode == 0
    assert runtime.clean()


def test_warnings_are_logged(runtime: Runtime) -> None:
    """What can't be granted is a warning in the log, as JSON lines, and not on the program's output."""
    runtime.change({"process": {"capabilities": {"bounding": ["CAP_FLY"]}}}, "true")
    done = runtime("--log", "log", "--log-format", "json", "--rootless", "false", "run", runtime.id)
    assert (done.returncode, done.stderr) == (0, b"")
    [line] = [json.loads(line) for line in (runtime.bundle / "log").read_text().splitlines()]
    assert line["level"] == "warning"
    assert "CAP_FLY" in line["msg"]


@pytest.mark.parametrize("words", [("--no-pivot",), ("--no-new-keyring",), ("--no-pivot", "--no-new-keyring")])
def test_accepted_options(runtime: Runtime, words: tuple[str, ...]) -> None:
    """Options that change how, not what."""
    runtime.change({}, "sh", "-c", "ls /bin/sh")
    done = runtime("run", *words, runtime.id)
    assert (done.returncode, done.stdout) == (0, b"/bin/sh\n"), done


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--systemd-cgroup", "run", "x"), "systemd"),
        (("checkpoint", "nobody"), "container nobody does not exist"),
        (("state", "nobody"), "container nobody does not exist"),
        (("delete", "nobody"), "container nobody does not exist"),
        (("kill", "nobody"), "container nobody does not exist"),
        (("events", "nobody"), "container nobody does not exist"),
    ],
)
def test_refusals(runtime: Runtime, words: tuple[str, ...], said: str) -> None:
    """What can't be done is one sentence and exit code 1."""
    runtime.change({}, "true")
    done = runtime(*words)
    assert done.returncode == 1
    assert said in done.stderr.decode()


def test_wrong_usage(runtime: Runtime) -> None:
    """An unknown option or verb is wrong usage."""
    assert runtime("run", "--no-such-option", "x").returncode == 2
    assert runtime("no-such-verb").returncode == 2
    assert b"create" in runtime("--help").stdout


def test_kill_of_a_stopped_container(runtime: Runtime) -> None:
    """The words are those containerd looks for."""
    runtime.change({}, "true")
    assert runtime("run", "--keep", runtime.id).returncode == 0
    assert b"container not running" in runtime("kill", runtime.id).stderr


@pytest.mark.skipif(ONLY_UNIFIED, reason="test_runtime_unified.py does it")
def test_update(runtime: Runtime) -> None:
    """Limits of a running container change, by flags and by JSON; what no controller takes is refused."""
    runtime.change({}, "sleep", "60")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    assert runtime("update", "--memory", "64m", "--pids-limit", "20", "--cpu-share", "300", runtime.id).returncode == 0
    assert (value("memory/{}/memory.limit_in_bytes", runtime), value("pids/{}/pids.max", runtime)) == (64 << 20, 20)
    assert value("cpu/{}/cpu.shares", runtime) == 300
    raw = json.dumps({"cpu": {"quota": 50000, "period": 100000}, "memory": {"limit": 80 << 20}}).encode()
    assert runtime("update", "--resources", "-", runtime.id, stdin=raw).returncode == 0
    assert (value("cpu/{}/cpu.cfs_quota_us", runtime), value("memory/{}/memory.limit_in_bytes", runtime)) == (
        50000,
        80 << 20,
    )
    tiny = json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}}).encode()
    assert b"more than the limit" in runtime("update", "-r", "-", runtime.id, stdin=tiny).stderr
    assert b"$.pids" in runtime("update", "-r", "-", runtime.id, stdin=b'{"pids": 3}').stderr
    assert b"not a number of bytes" in runtime("update", "--memory", "much", runtime.id).stderr
    assert b"not supported" in runtime("update", "--l3-cache-schema", "L3:0=f", runtime.id).stderr


def value(path: str, runtime: Runtime) -> int:
    return int(Path("/sys/fs/cgroup", path.format(f"{GROUP}/{runtime.id}")).read_text())


def test_events(runtime: Runtime) -> None:
    """`events --stats` is one object in runc's shape; without, they come until the end."""
    runtime.change({"linux": {"resources": {"pids": {"limit": 20}}}}, "sh", "-c", "sleep 3; true")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    event = runtime.json("events", "--stats", runtime.id)
    assert (event["type"], event["id"]) == ("stats", runtime.id)
    data: dict[str, Any] = event["data"]
    assert data["cpu"]["usage"]["total"] > 0
    assert data["memory"]["usage"]["usage"] > 0
    assert data["memory"]["raw"]
    assert data["pids"] == {"current": 2, "limit": 20}
    lines = runtime("events", "--interval", "200ms", runtime.id).stdout.splitlines()
    assert len(lines) > 1
    assert {json.loads(line)["type"] for line in lines} == {"stats"}


def test_event_of_memory_that_ran_out(runtime: Runtime) -> None:
    """What the kernel kills for want of memory is an event."""
    memory = {"limit": 32 << 20, "swap": 32 << 20}
    script = "sleep 1; dd if=/dev/zero of=/dev/shm/big bs=1M count=60; sleep 1"
    runtime.change({"linux": {"resources": {"memory": memory}}}, "sh", "-c", script)
    assert runtime("run", "--detach", runtime.id).returncode == 0
    lines = runtime("events", "--interval", "1m", runtime.id).stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["stats", "oom"]


def test_exec_in_a_group_below(runtime: Runtime) -> None:
    """exec may join a control group below the container's, and only one that is there."""
    runtime.change({}, "sleep", "60")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    places = groups(f"{GROUP}/{runtime.id}")
    assert b"no control group" in runtime("exec", "--cgroup", "below", runtime.id, "true").stderr
    assert b"no control group" in runtime("exec", "--cgroup", "../..", runtime.id, "true").stderr
    for group in places:
        (group / "below").mkdir()
    for name in ("cpus", "mems"):
        for group in places:
            if (own := group / f"cpuset.{name}").is_file():
                (group / f"below/cpuset.{name}").write_text(own.read_text())
    done = runtime("exec", "--cgroup", "below", runtime.id, "cat", "/proc/self/cgroup")
    assert (b"0::/below\n" if ONLY_UNIFIED else b"pids:/below\n") in done.stdout, done


def test_labels_of_exec(runtime: Runtime) -> None:
    """A label that nothing here enforces is refused, not left out."""
    runtime.change({}, "sleep", "60")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    assert b"$.process.apparmorProfile" in runtime("exec", "--apparmor", "ours", runtime.id, "true").stderr
    assert b"$.process.selinuxLabel" in runtime("exec", "--process-label", "ours", runtime.id, "true").stderr


def test_exec_has_its_own_rights(runtime: Runtime) -> None:
    """Groups, capabilities and no_new_privs of exec are its own."""
    runtime.change({"process": {"noNewPrivileges": False}}, "sleep", "60")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    words = ("--additional-gids", "44", "--cap", "CAP_CHOWN", "--no-new-privs")
    done = runtime("exec", *words, runtime.id, "sh", "-c", "id -G; grep -E 'CapPrm|NoNew' /proc/self/status")
    assert done.stdout.split() == [b"0", b"44", b"CapPrm:", b"0000000020000421", b"NoNewPrivs:", b"1"], done


def test_exec_in_a_user_namespace(runtime: Runtime) -> None:
    """A program added by exec is in all namespaces of the container, the user namespace too."""
    maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    config = runtime.example()
    config["process"] |= {"args": ["sleep", "60"], "terminal": False}
    config["linux"] |= {"uidMappings": maps, "gidMappings": maps}
    config["linux"]["namespaces"].append({"type": "user"})
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    assert runtime("run", "--detach", runtime.id).returncode == 0
    links = "for n in user mnt uts; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done"
    done = runtime("exec", runtime.id, "sh", "-c", f"id -u; cat /proc/self/uid_map; {links}")
    uid, inside, outside, size, *seen = done.stdout.split()
    assert (uid, inside, outside, size) == (b"0", b"0", b"100000", b"1000"), done
    assert seen[0::2] == seen[1::2]
    assert seen
