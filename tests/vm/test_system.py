"""Machines with an operating system of their own, through the command: a tiny system, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.docker.request import Link
from tests.vm.box import NEEDS, PATIENCE, asked, said

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS)]


def test_a_machine_lives_and_is_switched_off(engine: Daemon, tiny: list[str]) -> None:
    """Its disks are as asked for, its console answers, it outlives the engine, and the power button ends it cleanly."""
    engine.ok("vm", "create", "box", *tiny, "--add-disk", "data:64m,iops=500,rate=20m", "--watchdog", "reset")
    engine.ok("vm", "start", "box")
    log = said(engine, "box", "tiny# ")
    assert "tiny: vda root 2097152 0" in log
    assert "tiny: vdb data 131072 0" in log
    assert "tiny: vdc seed" in log
    assert '"local-hostname":"box"' in log
    assert "tiny: bios" in log
    engine.kill()
    engine.start()
    assert engine.client.instances.get("box").status == "running"
    asked(engine, "box", "echo answer $((6*7))", "answer 42")
    picture = Path(engine.root, "box.png")
    engine.ok("vm", "screenshot", "box", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    engine.ok("vm", "send-key", "box", "ctrl-l", "f1")
    engine.ok("vm", "type", "-e", "box", "Hello, World!")
    engine.ok("vm", "stop", "box")
    ended = engine.client.instances.get("box")
    assert (ended.status, ended.exit_code) == ("exited", 0)
    assert "tiny: button pressed" in engine.ok("logs", "box")
    assert "trivet vm start box" in engine.trivet("cp", "box:/etc/passwd", "-").stderr.decode()


def test_it_starts_again_and_pauses(engine: Daemon, tiny: list[str]) -> None:
    """A machine comes back from off, stands still while paused, is reset on request; a panic ends it, and says so."""
    engine.ok("vm", "start", "box")
    said(engine, "box", "button pressed")
    before = engine.ok("logs", "box").count("tiny: up with")
    deadline = time.monotonic() + PATIENCE
    while engine.ok("logs", "box").count("tiny: up with") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert before in (1, 2)
    engine.ok("pause", "box")
    assert engine.client.machines.get("box").run_state == "paused"
    engine.ok("unpause", "box")
    engine.ok("vm", "reboot", "--force", "box")
    deadline = time.monotonic() + PATIENCE
    while engine.ok("logs", "box").count("tiny: up with") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    link = Link(str(engine.run / "docker.sock"))
    link.request("GET", "/v1.43/containers/box/json")
    assert json.loads(link.getresponse().read())["State"]["Running"] is True  # also by Docker's words, without an image
    link.close()
    asked(engine, "box", "echo c > /proc/sysrq-trigger", "Kernel panic")
    deadline = time.monotonic() + PATIENCE
    while (ended := engine.client.instances.get("box")).status != "exited":
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert (ended.exit_code, ended.error) == (1, "the guest's kernel panicked: sysrq triggered crash")
    engine.ok("vm", "start", "box")
    engine.ok("vm", "stop", "--force", "box")
    assert engine.client.instances.get("box").exit_code == 137
    engine.ok("vm", "rm", "box")
    assert list(Path(engine.root, "snapshot/disk/instance").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "the machine has nothing to boot"),
        (["--image", "debian/99"], "it is no release of Debian"),
        (["--kernel", "/nowhere"], "/nowhere is no file of the engine's host"),
        (["--boot", "network", "--ssh-key", "ssh-ed25519 AAAA\nroot"], "is no public SSH key"),
        (["--boot", "network", "--add-disk", "root:1g"], "a disk named root is there already"),
        (["--boot", "network", "--add-disk", "a:1g", "--add-disk", "a:1g"], "a disk named a is there already"),
        (["--boot", "network", "--add-disk", "../x:1g"], "is no disk"),
        (["--boot", "network", "--add-disk", "a:5"], "is no disk"),
        (["--boot", "floppy"], "is no order of disk, cdrom and network"),
        (["--boot", "network", "--network", "host"], "network host is not possible at level vm"),
    ],
)
def test_what_cannot_be_is_refused(engine: Daemon, options: list[str], complaint: str) -> None:
    """A machine that can't be is refused in one sentence, and nothing of it stays."""
    done = engine.trivet("vm", "create", "wrong", *options)
    assert done.returncode in (1, 2)
    assert complaint in done.stderr.decode()
    assert engine.trivet("vm", "info", "wrong").returncode == 1
