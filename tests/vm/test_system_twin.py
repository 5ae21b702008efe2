"""Copies of a running machine of its own that go on with its memory, told who they are by the distribution's agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS, PATIENCE, asked, said

from trivet.client.schema_checkpoint import CloneRequest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900), pytest.mark.needs(*NEEDS, "apt-get", "dpkg-deb")]


@pytest.fixture(scope="module")
def machine(engine: Daemon, talking: list[str]) -> Iterator[str]:
    """A machine with an agent and a disk that was plugged in, on a network."""
    engine.ok("network", "create", "yard")
    engine.ok("vm", "create", "sheep", *talking[:-2], "--network", "yard", "--start")
    said(engine, "sheep", "tiny# ")
    engine.ok("vm", "disk", "add", "sheep", "wool:16m")
    deadline = time.monotonic() + PATIENCE
    while not engine.client.machines.get("sheep").agent:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    yield "sheep"
    engine.ok("vm", "rm", "-f", "sheep")
    engine.ok("network", "rm", "yard")


def within(engine: Daemon, name: str, line: str) -> str:
    """Run a line inside by the agent; what it says."""
    return engine.ok("exec", name, "sh", "-c", line)


def test_copies_go_on_with_names_and_addresses_of_their_own(engine: Daemon, machine: str) -> None:
    """Both have what the original had in memory and on its disks, and neither has its name, address or hardware's."""
    within(engine, machine, "echo shorn > /word; printf 'black' > /dev/vdc; sync; ip link set lo up; sleep 1000 &")
    before = engine.client.instances.get(machine).networks[0]
    within(engine, machine, f"ip link set eth0 up; ip addr add {before.addresses[0]} dev eth0")
    made = engine.client.checkpoints.clone(machine, CloneRequest(count=2, memory=True))
    assert made.names == ["sheep-1", "sheep-2"]
    macs, seen = {before.mac.lower()}, set(before.addresses)
    for name in made.names:
        use = engine.client.instances.get(name).networks[0]
        assert within(engine, name, "cat /word; head -c 5 /dev/vdc; pidof sleep >/dev/null && echo ' sleeps'") == (
            "shorn\nblack sleeps"
        )
        assert within(engine, name, "hostname") == name
        shown = within(engine, name, "ip addr show eth0")
        assert use.mac.lower() in shown
        assert use.addresses[0] in shown
        assert not any(each in shown for each in (*macs, *seen))
        assert f"via {use.gateway} dev eth0" in within(engine, name, "ip route")
        assert within(engine, name, f"ping -c 1 -W 20 {use.gateway} >/dev/null && echo answers") == "answers"
        assert abs(int(within(engine, name, "date +%s")) - time.time()) < 60
        macs.add(use.mac.lower())
        seen |= set(use.addresses)
        assert "tiny: up" in engine.ok("logs", name) or engine.ok("logs", name) == ""
    assert within(engine, machine, "hostname; cat /word") == "(none)\nshorn"
    assert before.addresses[0] in within(engine, machine, "ip addr show eth0")


def test_a_copy_is_saved_and_starts_as_others_do(engine: Daemon, machine: str) -> None:
    """It is gone back to with its memory, and is a machine like any other; without an agent, or off, it has no copy."""
    engine.ok("snapshot", "sheep-1", "early")
    within(engine, "sheep-1", "echo later > /word")
    engine.ok("snapshot", "revert", "sheep-1", "early")
    assert within(engine, "sheep-1", "cat /word") == "shorn"
    engine.ok("vm", "stop", "-f", "sheep-1", "sheep-2")
    engine.ok("vm", "start", "sheep-1")
    asked(engine, "sheep-1", "echo now $(head -c 5 /dev/vdc) $(ls /word 2>&1)", "now black ls: /word: No such file")
    asked(engine, "sheep-1", "killall qemu-ga && echo kil''led", "killed")
    for name, why in (("sheep-1", "no guest agent answers"), ("sheep-2", "it is exited")):
        assert why in engine.trivet("clone", "--memory", name, "--name", "ghost").stderr.decode()
    assert engine.trivet("inspect", "ghost").returncode == 1
    engine.ok("vm", "rm", "-f", "sheep-1", "sheep-2")


def test_what_an_engine_left_standing_is_switched_off(engine: Daemon, machine: str) -> None:
    """A copy that an engine was killed before telling who it is doesn't go on as its original; it starts as itself."""
    engine.ok("clone", "--memory", machine, "--name", "lamb")
    screen = engine.client.machines.get("lamb").display
    Path(screen).with_name("arriving").touch()
    engine.kill()
    engine.start()
    deadline = time.monotonic() + PATIENCE
    while engine.client.instances.get("lamb").status != "exited":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    engine.ok("vm", "start", "lamb")
    engine.ok("vm", "rm", "-f", "lamb")
