"""The contract, part five: starting, stopping, being killed, and what is left."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from tests.conformance.harness import Harness, Session

from trivet.base.error import Conflict
from trivet.isolation.driver import Pausable
from trivet.isolation.failure import ProgramNotFound
from trivet.runtime import life

STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.1; done"


def test_life(instance: Harness) -> None:
    """gone, created, running, exited, gone: each step is told by the status."""
    assert instance.status().word == "gone"
    session = instance.create("sh", "-c", "echo begun; sleep 0.2; exit 4")
    assert instance.status().word == "created"
    time.sleep(0.1)
    assert session.stdout == b""
    session.go(instance.plan.program)
    session.until(b"begun")
    status = instance.status()
    assert status.word == "running"
    assert status.pid > 0
    assert session.wait().code == 4
    ended = instance.becomes("exited").exit
    assert ended is not None
    assert (ended.code, ended.signal, ended.out_of_memory) == (4, 0, False)
    assert abs(ended.time / 1e9 - time.time()) < 60
    instance.driver.release(instance.plan)
    assert instance.status().word == "gone"


def test_prepare_and_release_are_idempotent(instance: Harness) -> None:
    """Preparing twice and releasing twice, or before anything was prepared, is fine."""
    instance.driver.release(instance.plan)
    instance.driver.prepare(instance.plan)
    instance.driver.prepare(instance.plan)
    assert instance.shell("echo fine").text == "fine"
    instance.driver.release(instance.plan)


def test_stop_with_grace(instance: Harness) -> None:
    """A program that listens to TERM ends by itself, with its own code."""
    session = instance.start("sh", "-c", "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done")
    session.until(b"up")
    instance.driver.signal(instance.plan, signal.SIGTERM)
    result = session.wait()
    assert (result.code, result.stdout) == (9, b"up\nbye\n")


def test_program_that_ignores_term_is_killed(instance: Harness) -> None:
    """A program that ignores TERM goes on, until it is killed."""
    session = instance.start("sh", "-c", STUBBORN)
    session.until(b"up")
    instance.driver.signal(instance.plan, signal.SIGTERM)
    time.sleep(0.5)
    assert instance.status().word == "running"
    instance.driver.signal(instance.plan, signal.SIGKILL)
    assert session.wait().code == 137


def test_signal_needs_a_running_instance(instance: Harness) -> None:
    """A signal to an instance that has ended is refused with the status."""
    instance.start("true").wait()
    instance.becomes("exited")
    with pytest.raises(Conflict, match="not running"):
        instance.driver.signal(instance.plan, 15)


def test_orphans_die_with_the_program(instance: Harness) -> None:
    """Processes that the program left behind, also in sessions of their own, end when it ends."""
    session = instance.start("sh", "-c", "for i in 1 2 3; do setsid sleep 987654 & done; sleep 0.3; echo up")
    result = session.wait()
    assert result.code == 0
    instance.becomes("exited")
    deadline = time.monotonic() + 5
    while _running("sleep\0987654\0"):
        assert time.monotonic() < deadline, "orphans live"
        time.sleep(0.02)


def test_init_collects_the_dead(instance: Harness) -> None:
    """With `init` a dead orphan doesn't stay as a zombie, signals reach the program, and its code comes back."""
    script = """(sleep 0.1 &) ; sleep 0.6
        ps -o stat,args | grep -c '^Z'
        trap 'exit 8' TERM; echo up; while :; do sleep 0.05; done"""
    session = instance.start("sh", "-c", script, init=True)
    session.until(b"up")
    instance.driver.signal(instance.plan, signal.SIGTERM)
    result = session.wait()
    assert result.code == 8
    if not instance.expect("sees host processes"):
        assert result.lines == ["0", "up"]


def test_init_passes_death_on(instance: Harness) -> None:
    """With `init` a program that died of a signal, or couldn't be executed, is told as without."""
    assert instance.shell("kill -9 $$", init=True).code == 137
    with pytest.raises(ProgramNotFound):
        instance.run("no-such-program", init=True)


def test_init_leaves_the_terminal_alone(instance: Harness) -> None:
    """With `init` the interrupt character reaches the program once."""
    script = "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.05; done"
    session = instance.start("sh", "-c", script, terminal=True, stdin=True, init=True)
    session.until(b"ready")
    session.channel.write(b"\x03")
    session.until(b"interrupted")
    time.sleep(0.2)
    instance.driver.signal(instance.plan, signal.SIGKILL)
    assert session.wait().stdout.count(b"interrupted") == 1


def test_log(instance: Harness) -> None:
    """Every line is in the log with time and stream, also a last one without an end; it is kept after the release."""
    instance.shell("echo one; echo two >&2; printf three")
    lines = instance.log.read_text().splitlines()
    pattern = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([FP]) (.*)$")
    rows = [match.groups() for line in lines if (match := pattern.match(line))]
    assert len(rows) == len(lines)
    assert sorted(rows) == [("stderr", "F", "two"), ("stdout", "F", "one"), ("stdout", "P", "three")]


def test_second_client(instance: Harness) -> None:
    """A client that attaches later gets the output from then on, and the end."""
    first = instance.start("sh", "-c", "echo up; read line; echo got $line", stdin=True)
    first.until(b"up")
    channel = instance.driver.attach(instance.plan)
    channel.attach()
    second = Session(channel)
    time.sleep(0.1)
    second.channel.write(b"this\n")
    assert second.wait().stdout == b"got this\n"
    assert first.wait().stdout == b"up\ngot this\n"


def test_program_outlives_its_clients(instance: Harness) -> None:
    """When every client has gone the program runs on, and its end is told to who asks later."""
    session = instance.start("sh", "-c", "echo up; sleep 0.5; echo still; exit 6")
    session.until(b"up")
    session.channel.close()
    ended = instance.becomes("exited").exit
    assert ended is not None
    assert ended.code == 6
    assert "stdout F still" in instance.log.read_text()


def test_pause_and_resume(instance: Harness) -> None:
    """A paused instance stands still and goes on where it was."""
    instance.only_with("pause")
    assert isinstance(instance.driver, Pausable)
    session = instance.start("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")
    session.until(b"5\n")
    instance.driver.pause(instance.plan)
    assert instance.status().word == "paused"
    time.sleep(0.3)
    size = instance.log.stat().st_size
    time.sleep(0.3)
    assert instance.log.stat().st_size == size
    instance.driver.resume(instance.plan)
    assert instance.status().word == "running"
    deadline = time.monotonic() + 10
    while instance.log.stat().st_size == size:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_lost_monitor(instance: Harness) -> None:
    """When the monitor was killed the status says so, and `release` still cleans everything up."""
    session = instance.start("sh", "-c", "echo up; exec sleep 987655")
    session.until(b"up")
    life.end(Path(instance.plan.directory))
    instance.becomes("lost")
    instance.driver.release(instance.plan)
    assert instance.status().word == "gone"
    assert not _running("sleep\0987655\0")


def test_release_leaves_nothing(instance: Harness) -> None:
    """After the release of a running instance there is no process, mount, cgroup or file of it."""
    session = instance.start("sh", "-c", "setsid sleep 987656 & echo up; exec sleep 987656")
    session.until(b"up")
    instance.exec("sleep", "987656")
    instance.driver.release(instance.plan)
    assert not _running("sleep\0987656\0")
    assert not Path(instance.plan.directory).exists()
    assert instance.mounts() == []
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{instance.plan.cgroup}"))
    assert not _running(instance.plan.directory)


def test_processes(instance: Harness) -> None:
    """The processes inside are listed with user, command and start."""
    session = instance.start("sh", "-c", "sleep 600 & echo up; wait", user="ann")
    session.until(b"up")
    rows = instance.driver.processes(instance.plan)
    assert any("sleep 600" in row.command for row in rows)
    assert all(abs(row.started - time.time()) < 120 for row in rows)


def test_stats(instance: Harness) -> None:
    """Processor time, memory and tasks are measured."""
    session = instance.start("sh", "-c", "inside spin 300; inside eat 40")
    session.until(b"full")
    stats = instance.driver.stats(instance.plan)
    assert stats.used.cpu > 50_000_000
    assert stats.used.user > 10_000_000
    assert stats.used.memory > 40 << 20
    assert stats.pids >= 1


def _running(words: str) -> list[int]:
    """Find processes on the host whose command line holds `words`; in a VM there can be none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found
