"""`kill -9` of the engine: nothing dies with it, and the next one finds everything."""

from __future__ import annotations

import os
import random
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.fault.conftest import IMAGE

LEVELS = ["process", "container", pytest.param("vm", marks=pytest.mark.vm)]
SERVE = (
    "mkdir -p /www; echo served >/www/index.html; httpd -p {port} -h /www; "
    "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"
)


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _fetch(port: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("level", LEVELS)
def test_an_instance_its_log_and_its_port_outlive_the_engine(victim: Daemon, level: str) -> None:
    """While no engine is there the port answers and the log grows; afterwards the new engine knows all of it."""
    port = {"process": 18471, "container": 18472, "vm": 18473}[level]
    publish = f"127.0.0.1::{port}"
    script = SERVE.format(port=port)
    victim.ok("run", "-d", "--name", "web", "--isolation", level, "-p", publish, IMAGE, "sh", "-c", script)
    published = victim.ok("port", "web").rpartition(":")[2]
    _until(lambda: "line 3" in victim.ok("logs", "web"))
    victim.kill()
    assert _fetch(published) == b"served\n"
    time.sleep(0.5)
    victim.start()
    lines = [line for line in victim.ok("logs", "web").splitlines() if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    assert len(lines) > 8
    assert victim.ok("exec", "web", "cat", "/www/index.html") == "served"
    assert _fetch(published) == b"served\n"
    victim.ok("stop", "-t", "1", "web")
    assert victim.client.instances.get("web").exit_code in (137, 143)


@pytest.mark.parametrize("level", ["process", "container"])
def test_added_programs_outlive_the_engine(victim: Daemon, level: str) -> None:
    """One that was added goes on without an engine, and the next engine's are added by the same monitor as before."""
    victim.ok("run", "-d", "--name", "one", "--isolation", level, IMAGE, "sleep", "600")
    victim.ok("exec", "-d", "one", "sh", "-c", "until [ -e /go ]; do sleep 0.05; done; echo done >/file")
    victim.kill()
    victim.start()
    victim.ok("exec", "one", "touch", "/go")
    _until(lambda: victim.trivet("exec", "one", "cat", "/file").stdout == b"done\n")
    assert list(victim.run.glob("i/*/monitor.sock"))
    assert list(victim.run.glob("i/*/exec")) == []  # where launchers that do it instead have their directories


@pytest.mark.parametrize("level", LEVELS)
def test_an_exit_nobody_saw_is_known_afterwards(victim: Daemon, level: str) -> None:
    """A program that ends while no engine is there leaves its exit code for the next one."""
    victim.ok("run", "-d", "--name", "short", "--isolation", level, IMAGE, "sh", "-c", "sleep 2; echo bye; exit 5")
    pid = victim.client.instances.get("short").pid
    victim.kill()
    _until(lambda: not Path(f"/proc/{pid}").exists())
    victim.start()
    assert victim.client.instances.wait("short").code == 5
    assert victim.ok("logs", "short") == "bye"


def test_a_killed_engine_restarts_what_was_to_be_restarted(victim: Daemon) -> None:
    """`--restart always` holds for an end that no engine saw, `--rm` too."""
    victim.ok("run", "-d", "--name", "again", "--restart", "always", IMAGE, "sh", "-c", "sleep 1")
    victim.ok("run", "-d", "--name", "gone", "--rm", IMAGE, "sh", "-c", "sleep 1")
    victim.kill()
    time.sleep(1.5)
    victim.start()
    _until(lambda: victim.client.instances.get("again").status == "running")
    assert [instance.name for instance in victim.client.instances.list(all=True)] == ["again"]


def test_killed_at_any_moment_the_engine_leaves_nothing_half_made(victim: Daemon) -> None:
    """Twenty engines are killed in the midst of run, stop and rm; each successor agrees with its records."""
    chance = random.Random(20)
    for number in range(20):
        name = f"i{number}"
        command = ["run", "-d", "--name", name, IMAGE, "sleep", "60"] if number % 4 else ["rm", "-f", "i1"]
        started = victim.begin(*command)
        time.sleep(chance.uniform(0, 0.35))
        victim.kill()
        started.wait(30)
        victim.start()
        assert victim.client.system.check() == []
    for instance in victim.client.instances.list(all=True):
        assert instance.status in ("created", "running", "exited")
        victim.ok("rm", "-f", instance.name)
    assert list(victim.run.glob("i/*")) == []
    _until(lambda: not list(victim.root.glob("instance/*")))  # files are deleted in the background
    assert list(victim.run.glob("netns/*")) == []


def test_a_monitor_that_is_killed_is_told_as_such(victim: Daemon) -> None:
    """Without its monitor an instance is over: what is left of it is ended, and the record says why."""
    victim.ok("run", "-d", "--name", "orphan", IMAGE, "sleep", "600")
    pid = victim.client.instances.get("orphan").pid
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    _until(lambda: victim.client.instances.get("orphan").status == "exited")
    instance = victim.client.instances.get("orphan")
    assert (instance.exit_code, instance.error) == (137, "its monitor was killed")
    _until(lambda: not Path(f"/proc/{pid}").exists())
    victim.ok("start", "orphan")


def test_killed_while_restarting_again_and_again(victim: Daemon) -> None:
    """Wherever between end and restart the engine is killed, the next one restarts what was to be restarted."""
    victim.ok("run", "-d", "--name", "busy", "--restart", "always", IMAGE, "sh", "-c", "sleep 0.1")
    for number in range(8):
        time.sleep(0.1 + 0.03 * number)
        victim.kill()
        victim.start()
        before = victim.client.instances.get("busy").restarts
        _until(lambda before=before: victim.client.instances.get("busy").restarts > before)  # type: ignore[misc]


@pytest.mark.vm
def test_a_machine_goes_on_when_the_engine_dies_while_it_is_saved(victim: Daemon) -> None:
    """Whenever that is, no half a snapshot is left, the program goes on, and the next snapshot is a whole one."""
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
    victim.ok("run", "-d", "--name", "counting", "--isolation", "vm", IMAGE, "sh", "-c", script)
    for pause in (0.05, 0.3, 0.6):
        saving = victim.begin("snapshot", "counting")
        time.sleep(pause)
        victim.kill()
        saving.wait(20)
        victim.start()
        before = len(victim.ok("logs", "counting").splitlines())
        _until(lambda before=before: len(victim.ok("logs", "counting").splitlines()) > before + 3)  # type: ignore[misc]
        known = len(victim.client.checkpoints.list("counting"))
        assert len(list(victim.root.glob("instance/*/checkpoint/*"))) == known
    victim.ok("snapshot", "counting", "whole")
    counted = len(victim.ok("logs", "counting").splitlines())
    victim.ok("snapshot", "revert", "counting", "whole")
    _until(lambda: len(victim.ok("logs", "counting").splitlines()) > counted)
    assert victim.client.instances.get("counting").origin == "restored"
