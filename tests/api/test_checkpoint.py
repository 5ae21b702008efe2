"""Snapshots of instances, and clones, through the command."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator

import pytest
from tests.conftest import Daemon

PROGRAM = """
n=0
while read line; do
    case $line in
        set*) n=${line#set }; echo $n > /value;;
        *) echo "value $n $(cat /value) $(hostname)";;
    esac
done < /pipe
"""
IDENTITY = (
    "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; cat /sys/class/net/eth0/address;"
    "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'; head -c 16 /dev/urandom | md5sum"
)


class Store:
    """A small store of one value, in the memory of a shell and on its disk, that listens to a pipe."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.daemon, self.name = daemon, name

    def set(self, value: str) -> None:
        """Set the value, and wait until it is on the disk."""
        wait = f'until [ "$(cat /value)" = {value} ]; do sleep 0.05; done; sync'
        self.daemon.ok(
            "exec", self.name, "sh", "-c", f"until [ -p /pipe ]; do sleep 0.05; done; echo set {value} > /pipe; {wait}"
        )

    def get(self) -> tuple[str, str, str]:
        """Ask for the value in memory, the one on disk, and the host name."""
        before = len(self.daemon.ok("logs", self.name).splitlines())
        self.daemon.ok("exec", self.name, "sh", "-c", "echo get > /pipe")
        deadline = time.monotonic() + 30
        while len(lines := self.daemon.ok("logs", self.name).splitlines()) <= before:
            assert time.monotonic() < deadline, "the store says nothing"
            time.sleep(0.05)
        found = re.fullmatch(r"value (\S*) (\S*) (\S*)", lines[-1])
        assert found, lines
        return found[1], found[2], found[3]


@pytest.fixture
def store(daemon: Daemon, busybox: str) -> Iterator[Callable[[str], Store]]:
    """Stores that run, by their level."""
    made: list[str] = []

    def run(level: str) -> Store:
        made.append(f"store-{os.urandom(3).hex()}")
        begin = f"mkfifo /pipe; exec 3<>/pipe; {PROGRAM}"
        daemon.ok("run", "-d", "--isolation", level, "--name", made[-1], busybox, "sh", "-c", begin)
        return Store(daemon, made[-1])

    yield run
    for name in made:
        rows = [json.loads(line) for line in daemon.ok("ps", "-a", "--json").splitlines()]
        daemon.trivet("rm", "-f", *(row["name"] for row in rows if row["name"].startswith(name)))


@pytest.mark.vm
def test_an_instance_goes_back_to_a_snapshot(daemon: Daemon, store: Callable[[str], Store]) -> None:
    """What is in memory and on disk is what it was, whichever of several snapshots is gone back to, again and again."""
    db = store("vm")
    for value in ("one", "two", "three"):
        db.set(value)
        said = daemon.ok("snapshot", db.name, value)
        assert re.fullmatch(rf"{value} \(with memory: it stood still for \d+ ms\)", said)
    address = daemon.client.instances.get(db.name).networks[0].addresses
    host = db.get()[2]
    db.set("lost")
    for value in ("one", "two", "one"):
        daemon.ok("snapshot", "revert", db.name, value)
        assert db.get() == (value, value, host)
    assert daemon.client.instances.get(db.name).networks[0].addresses == address
    db.set("other")
    daemon.ok("snapshot", db.name, "branch")
    daemon.ok("snapshot", "rm", db.name, "two")
    listed = {row.name: (row.parent, row.current) for row in daemon.client.checkpoints.list(db.name)}
    assert listed == {"one": ("", False), "three": ("one", False), "branch": ("one", True)}
    assert re.search(rf"{db.name}  +three ", daemon.ok("snapshot", "ls", db.name))
    assert b"has no snapshot two" in daemon.trivet("snapshot", "revert", db.name, "two").stderr


@pytest.mark.vm
def test_a_checkpoint_outlives_the_instances_run(daemon: Daemon, store: Callable[[str], Store]) -> None:
    """A saved instance ends, keeps its address, and goes on where it was."""
    db = store("vm")
    db.set("kept")
    daemon.ok("checkpoint", db.name, "night")
    found = daemon.client.instances.get(db.name)
    assert (found.status, found.pid) == ("exited", 0)
    assert "saved as snapshot night" in found.error
    daemon.ok("restore", db.name)
    assert db.get()[:2] == ("kept", "kept")
    assert daemon.client.instances.get(db.name).origin == "restored"
    assert b"it is running" in daemon.trivet("restore", db.name).stderr


@pytest.mark.vm
def test_clones_of_a_running_instance_diverge(daemon: Daemon, store: Callable[[str], Store]) -> None:
    """Each clone goes on with what the original had, under names, addresses and ids of its own, and by itself."""
    db = store("vm")
    db.set("loaded")
    names = daemon.ok("clone", db.name, "--count", "3").split()
    assert names == [f"{db.name}-{number}" for number in (1, 2, 3)]
    stores = [db, *(Store(daemon, name) for name in names)]
    daemon.ok("exec", db.name, "sh", "-c", "echo original > /etc/machine-id")
    seen = [each.get() for each in stores]
    assert [row[:2] for row in seen] == [("loaded", "loaded")] * 4
    identities = [daemon.ok("exec", each.name, "sh", "-c", IDENTITY).splitlines() for each in stores]
    for column in zip(*identities, strict=True):
        assert len(set(column)) == 4, column
    for number, each in enumerate(stores):
        each.set(f"own{number}")
    assert [each.get()[:2] for each in stores] == [(f"own{number}", f"own{number}") for number in range(4)]
    daemon.ok("restart", "-t", "0", names[0])
    assert daemon.ok("exec", names[0], "cat", "/value") == "own1"


def test_an_instance_that_does_not_run_is_cloned_and_goes_back_at_every_level(
    daemon: Daemon, store: Callable[[str], Store]
) -> None:
    """The disk is what is saved."""
    db = store("container")
    db.set("first")
    daemon.ok("stop", "-t", "0", db.name)
    assert daemon.ok("snapshot", db.name) == "1 (without memory: it does not run)"
    (name,) = daemon.ok("clone", db.name).split()
    daemon.ok("start", db.name, name)
    assert daemon.ok("exec", name, "cat", "/value") == "first"
    daemon.ok("exec", name, "sh", "-c", "echo changed > /value")
    db.set("second")
    assert daemon.ok("exec", name, "cat", "/value") == "changed"
    daemon.ok("snapshot", "revert", db.name)
    daemon.ok("start", db.name)
    assert daemon.ok("exec", db.name, "cat", "/value") == "first"


@pytest.mark.vm
def test_what_cannot_be_saved_is_refused_by_name(daemon: Daemon, busybox: str) -> None:
    """Shared directories and volumes are named, and the instance goes on."""
    name = f"sharing-{os.urandom(3).hex()}"
    try:
        daemon.ok("run", "-d", "--isolation", "vm", "--name", name, "-v", f"{name}:/data", busybox, "sleep", "600")
        for verb in ("snapshot", "clone", "checkpoint"):
            refused = daemon.trivet(verb, name)
            assert refused.returncode
            assert b"/data" in refused.stderr or name.encode() in refused.stderr
        assert daemon.ok("exec", name, "echo", "here") == "here"
        assert not daemon.client.checkpoints.list(name)
    finally:
        daemon.trivet("rm", "-f", name)
        daemon.trivet("volume", "rm", name)
