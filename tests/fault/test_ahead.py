"""Instances made ahead: who gets them, who doesn't, and what becomes of those that nobody gets."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon

IMAGE = "busybox:test"
WORDS = ("sh", "-c", "cat /etc/hostname; ls /sys/class/net; echo $0")


@pytest.fixture
def engine(tmp_path: Path, short_path: Path) -> Iterator[Daemon]:
    """An engine that keeps one instance ready of what is often started, and has the busybox image."""
    made = Daemon(tmp_path / "root", short_path)
    made.quiet = ("--spares=1",)
    with ExitStack() as undo:
        undo.callback(made.clean)
        made.start()
        made.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield made


def waiting(engine: Daemon) -> set[str]:
    """What is there of instances that no list tells of: the beginnings of their ids."""
    known = {instance.id[:20] for instance in engine.client.instances.list(all=True)}
    return {path.name for path in (engine.run / "i").glob("*")} - known


def ready(engine: Daemon) -> str:
    """The spare that has been set up; "" while there is none."""
    found = [place for place in waiting(engine) if (engine.run / "i" / place / "pid").exists()]
    return found[0] if found else ""


def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def spare(engine: Daemon, *words: str) -> str:
    """Start the same twice, and wait for what is made ahead then."""
    for _ in range(3):  # on a busy machine two of them can be too far apart
        engine.ok("run", "--rm", *words)
    until(lambda: ready(engine))
    return ready(engine)


def test_third_start_of_the_same_gets_what_was_made_ahead(engine: Daemon) -> None:
    """A request that was made twice finds an instance set up, and gives it name and labels of its own."""
    ahead = spare(engine, "--network", "none", IMAGE, *WORDS)
    output = engine.ok(
        "run", "--rm", "--network", "none", "--name", "third", "--label", "a=b", IMAGE, *WORDS
    ).splitlines()
    assert ahead.startswith(output[0])  # the host's name is the beginning of the id
    assert output[1:] == ["lo", "sh"]
    lines = engine.ok("events", "--since", "10m", "--until", "0s", "--json").splitlines()
    events = [event for line in lines if (event := json.loads(line))["name"] == "third"]
    assert [event["action"] for event in events] == ["create", "start", "die", "remove"]
    assert all(event["labels"] == {"a": "b"} for event in events)


@pytest.mark.parametrize(
    "words",
    [
        ("--network", "none", IMAGE, "cat", "/etc/hostname"),
        ("--network", "none", "-m", "64m", IMAGE, *WORDS),
        ("--network", "none", "-e", "A=b", IMAGE, *WORDS),
        (IMAGE, *WORDS),
    ],
    ids=["command", "limit", "environment", "network"],
)
def test_other_requests_get_their_own(engine: Daemon, words: tuple[str, ...]) -> None:
    """Another command, limit, variable or network: none of them is given what was made for others."""
    ahead = spare(engine, "--network", "none", IMAGE, *WORDS)
    assert not ahead.startswith(engine.ok("run", "--rm", *words).splitlines()[0])


def test_spare_waits_for_seconds_only(engine: Daemon) -> None:
    """What nobody asks for again is gone soon, with all it had."""
    for _ in range(3):  # two kinds at the same time
        begun = [engine.begin("run", "--rm", "--network", name, IMAGE, *WORDS) for name in ("bridge", "none")]
        assert [each.wait(60) for each in begun] == [0, 0]
    until(lambda: waiting(engine))
    until(lambda: not waiting(engine) and not groups(engine))
    assert not list((engine.run / "netns").glob("*"))


def test_spare_on_a_network_is_unknown_until_it_is_given(engine: Daemon) -> None:
    """A network's list and names don't tell of it before; then its name, alias and port are its own."""
    engine.ok("network", "create", "lan")
    serve = ["-d", "--network", "lan", "--network-alias", "web", "-p", "127.0.0.1::80", IMAGE, "sh", "-c"]
    serve += ["mkdir /www; hostname > /www/index.html; httpd -f -p 80 -h /www"]
    engine.ok("run", "--name", "one", *serve)
    engine.ok("run", "--name", "two", *serve)
    until(lambda: ready(engine))
    ahead = ready(engine)
    engine.ok("rm", "-f", "one", "two")
    assert engine.client.networks.get("lan").members == {}
    ask = ["run", "--rm", "--network", "lan", IMAGE, "nslookup", "web"]
    assert engine.trivet(*ask).returncode != 0
    engine.ok("run", "--name", "three", *serve)
    three = engine.client.instances.get("three")
    assert three.id.startswith(ahead)
    assert list(engine.client.networks.get("lan").members) == ["three"]
    for name in ("web", "three"):
        fetched = engine.ok("run", "--rm", "--network", "lan", IMAGE, "wget", "-qO-", f"http://{name}")
        assert fetched.strip() == three.id[:12]
    port = engine.ok("port", "three", "80").rpartition(":")[2].strip()
    with_host = engine.ok("run", "--rm", "--network", "host", IMAGE, "wget", "-qO-", f"http://127.0.0.1:{port}")
    assert with_host.strip() == three.id[:12]


def test_spare_gives_way(engine: Daemon) -> None:
    """Its network can be removed, its address be given to somebody who asks for it, its image be removed."""
    engine.ok("network", "create", "--subnet", "10.213.7.0/29", "--ip-range", "10.213.7.2/31", "small")
    lone = ["--network", "small", IMAGE]
    spare(engine, *lone, *WORDS)
    for address in ("10.213.7.2", "10.213.7.3"):  # it has one of the two
        assert address in engine.ok("run", "--rm", "--ip", address, *lone, "ip", "address")
    assert not waiting(engine)
    spare(engine, *lone, *WORDS)
    engine.ok("run", "-d", "--name", "other", *lone, "sleep", "600")
    assert "10.213.7." in engine.ok("run", "--rm", *lone, "ip", "address")
    assert not waiting(engine)
    engine.ok("rm", "-f", "other")
    spare(engine, *lone, *WORDS)
    engine.ok("network", "rm", "small")
    assert not waiting(engine)
    spare(engine, "--network", "none", IMAGE, *WORDS)
    engine.ok("rmi", IMAGE)
    until(lambda: not waiting(engine))
    assert engine.trivet("run", "--rm", "--pull", "never", "--network", "none", IMAGE, *WORDS).returncode == 125
    assert engine.client.system.check() == []


def test_name_that_is_taken_costs_no_spare(engine: Daemon) -> None:
    """A request that is refused for its name leaves what was made ahead for the next one."""
    engine.ok("create", "--name", "taken", IMAGE)
    ahead = spare(engine, "--network", "none", IMAGE, *WORDS)
    failed = engine.trivet("run", "--rm", "--network", "none", "--name", "taken", IMAGE, *WORDS)
    assert failed.returncode == 125
    assert b"already exists" in failed.stderr
    assert ahead in waiting(engine)
    assert ahead.startswith(engine.ok("run", "--rm", "--network", "none", IMAGE, *WORDS).splitlines()[0])


def test_spare_that_died_is_given_to_nobody(engine: Daemon) -> None:
    """Who asks for the same gets an instance of its own when somebody killed what was made ahead."""
    ahead = spare(engine, "--network", "none", IMAGE, *WORDS)
    os.kill(int((engine.run / "i" / ahead / "pid").read_text().split()[0]), 9)
    time.sleep(0.2)  # the monitor tells
    found = engine.ok("run", "--rm", "--network", "none", IMAGE, *WORDS).splitlines()
    assert not ahead.startswith(found[0])
    assert found[1:] == ["lo", "sh"]
    assert ahead not in waiting(engine)


def groups(engine: Daemon) -> list[Path]:
    """The control groups of the engine's instances."""
    prefix = engine.client.system.info().id[:8]
    return [path for path in Path("/sys/fs/cgroup").glob(f"*/trivet/{prefix}/*") if path.is_dir()]


@pytest.mark.parametrize("network", ["none", "bridge"])
@pytest.mark.parametrize("killed", [True, False])
def test_engine_that_ends_leaves_no_spare(engine: Daemon, killed: bool, network: str) -> None:
    """Whether the engine ends or is killed: the next one has no trace of what was nobody's."""
    ahead = spare(engine, "--network", network, IMAGE, *WORDS)
    pid = int((engine.run / "i" / ahead / "pid").read_text().split()[0])
    assert groups(engine)
    (engine.kill if killed else engine.stop)()
    if not killed:
        assert not Path(f"/proc/{pid}").exists()
    engine.start()
    assert not Path(f"/proc/{pid}").exists()
    assert not waiting(engine)
    assert not groups(engine)
    assert not list((engine.run / "netns").glob("*"))
    assert str(engine.run) not in Path("/proc/self/mountinfo").read_text()
    assert engine.client.system.check() == []
    engine.ok("run", "--rm", "--network", network, IMAGE, "true")
