"""Health checks: what the image or the command asks for is run, told, and acted upon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.runtime import until

from trivet.client.schema import Instance

FAST = ("--health-interval", "100ms", "--health-retries", "2")
CHECK = ("--health-cmd", "test -e /ok || { echo not yet; false; }")


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    """A name for an instance of this test, which goes afterwards."""
    word = f"health-{os.urandom(3).hex()}"
    yield word
    daemon.trivet("rm", "-f", word)


def _status(daemon: Daemon, name: str) -> str:
    health = daemon.client.instances.get(name).health
    return health.status if health else ""


@pytest.mark.parametrize("level", ["process", "container", pytest.param("vm", marks=pytest.mark.vm)])
def test_healthy_and_unhealthy(daemon: Daemon, busybox: str, name: str, level: str) -> None:
    """An instance is starting, then healthy or unhealthy, as its check says; ps, inspect and events tell."""
    daemon.ok("run", "-d", "--name", name, "--isolation", level, *FAST, *CHECK, busybox, "sleep", "600", timeout=120)
    until(lambda: _status(daemon, name) == "unhealthy", 30)
    seen = daemon.client.instances.get(name).health
    assert seen is not None
    assert seen.failing >= 2
    assert (seen.log[-1].exit_code, seen.log[-1].output) == (1, "not yet\n")
    assert "(unhealthy)" in daemon.ok("ps", "--filter", f"name={name}")
    daemon.ok("exec", name, "touch", "/ok")
    until(lambda: _status(daemon, name) == "healthy", 30)
    assert name in daemon.ok("ps", "--format", "name", "--filter", "health=healthy")
    until(lambda: len(daemon.client.instances.get(name).health.log) == 5, 30)  # type: ignore[union-attr]
    said = daemon.ok("events", "--since", "10m", "--until", "0s", "--filter", f"name={name}", "--json")
    assert said.count('"health_status"') == 2


def test_the_first_check_comes_soon(daemon: Daemon, busybox: str, name: str) -> None:
    """What is well is healthy long before an interval is over; what isn't well that early is no failure."""
    options = ["--health-interval", "1h", "--health-cmd", "test -e /ok"]
    daemon.ok("run", "-d", "--name", name, *options, busybox, "sh", "-c", "sleep 1; touch /ok; exec sleep 600")
    until(lambda: _status(daemon, name) == "healthy", 60)
    seen = daemon.client.instances.get(name).health
    assert seen is not None
    assert [probe.exit_code for probe in seen.log] == [0]
    daemon.ok("rm", "-f", name)
    options = ["--health-interval", "2s", "--health-retries", "1", "--health-cmd", "false"]
    daemon.ok("run", "-d", "--name", name, *options, busybox, "sleep", "600")
    until(lambda: _status(daemon, name) == "unhealthy", 60)
    seen = daemon.client.instances.get(name).health
    assert seen is not None
    assert (seen.failing, len(seen.log)) == (1, 1)


def test_the_image_s_check(daemon: Daemon, busybox: str, name: str, tmp_path: Path) -> None:
    """A Dockerfile's HEALTHCHECK is run; --no-healthcheck switches it off, options change parts of it."""
    check = 'HEALTHCHECK --interval=100ms --retries=1 CMD ["test", "-e", "/bin/sh"]'
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\n{check}\n")
    daemon.ok("build", "-q", "-t", f"{name}:1", tmp_path)
    daemon.ok("run", "-d", "--name", name, f"{name}:1", "sleep", "600")
    until(lambda: _status(daemon, name) == "healthy")
    daemon.ok("rm", "-f", name)
    daemon.ok("run", "-d", "--name", name, "--health-cmd", "false", f"{name}:1", "sleep", "600")
    until(lambda: _status(daemon, name) == "unhealthy")
    daemon.ok("rm", "-f", name)
    daemon.ok("run", "-d", "--name", name, "--no-healthcheck", f"{name}:1", "sleep", "600")
    assert daemon.client.instances.get(name).health is None
    daemon.ok("rm", "-f", name)
    daemon.ok("rmi", f"{name}:1")


def test_checks_that_hang_or_cannot_run(daemon: Daemon, busybox: str, name: str) -> None:
    """A check that takes too long is killed and counts as a failure, as does one that can't be executed."""
    slow = ("--health-cmd", "exec sleep 777", "--health-timeout", "200ms")
    daemon.ok("run", "-d", "--name", name, *FAST, *slow, busybox, "sleep", "600")
    until(lambda: _status(daemon, name) == "unhealthy")
    seen = daemon.client.instances.get(name).health
    assert seen is not None
    assert (seen.log[-1].exit_code, seen.log[-1].output) == (-1, "health check took longer than 0.2 s")
    until(lambda: len(daemon.client.instances.get(name).health.log) == 5)  # type: ignore[union-attr]
    assert daemon.ok("top", name).count("sleep 777") <= 1  # no more than the one that runs: five were begun
    daemon.ok("rm", "-f", name)


@pytest.mark.parametrize(("action", "ends"), [("kill", 137), ("stop", 137), ("restart", None)])
def test_what_is_done_then(daemon: Daemon, busybox: str, name: str, action: str, ends: int | None) -> None:
    """--health-on-failure kills, stops or restarts an unhealthy instance."""
    options = (*FAST, "--health-cmd", "false", "--health-on-failure", action, "--stop-timeout", "0")
    daemon.ok("run", "-d", "--name", name, *options, busybox, "sleep", "600")
    first = daemon.client.instances.get(name).started

    def done() -> bool:
        seen: Instance = daemon.client.instances.get(name)
        return seen.status == "exited" if ends else seen.status == "running" and seen.started != first

    until(done, 20)
    if ends:
        assert daemon.client.instances.get(name).exit_code == ends


def test_failures_of_the_start_do_not_count(daemon: Daemon, busybox: str, name: str) -> None:
    """In the start period failures leave it starting, and the first success makes it healthy."""
    calm = ("--health-start-period", "60s", "--health-start-interval", "50ms")
    daemon.ok("run", "-d", "--name", name, *FAST, *CHECK, *calm, busybox, "sleep", "600")
    until(lambda: len(daemon.client.instances.get(name).health.log) >= 4)  # type: ignore[union-attr]
    assert _status(daemon, name) == "starting"
    daemon.ok("exec", name, "touch", "/ok")
    until(lambda: _status(daemon, name) == "healthy")


def test_it_outlives_the_engine(daemon: Daemon, busybox: str, name: str) -> None:
    """After kill -9 the next engine goes on checking from where it was."""
    daemon.ok("run", "-d", "--name", name, *FAST, *CHECK, busybox, "sleep", "600")
    until(lambda: _status(daemon, name) == "unhealthy")
    daemon.kill()
    daemon.start()
    assert _status(daemon, name) == "unhealthy"
    daemon.ok("exec", name, "touch", "/ok")
    until(lambda: _status(daemon, name) == "healthy")
