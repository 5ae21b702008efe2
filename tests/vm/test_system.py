"""Machines with an operating system of their own, through the command: a tiny system, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.conftest import BIN, Daemon
from tests.vm.tiny import initrd

pytestmark = [pytest.mark.vm, pytest.mark.needs("root", "qemu-system-x86_64", "qemu-img", "mcopy", "mkfs.vfat")]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPPTTqz0yiF2tM5m+ad+8ae6EULevZWhVsgkgWf0CIG+ test"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """An engine that may be killed."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        made = Daemon(tmp_path_factory.mktemp("machines"), run)
        undo.callback(made.clean)
        made.start()
        yield made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that make a machine the tiny system."""
    kernel, system = initrd(tmp_path_factory.mktemp("tiny") / "initrd")
    options = ["--kernel", str(kernel), "--initrd", str(system), "--append", "console=ttyS0 quiet tsc=reliable"]
    return [*options, "--memory", "256m", "--disk", "1g", "--ssh-key", KEY, "--network", "none"]


def said(engine: Daemon, name: str, text: str) -> str:
    """Wait until a machine's console has said something; all it said."""
    deadline = time.monotonic() + PATIENCE
    while text not in (log := engine.ok("logs", name)):
        assert time.monotonic() < deadline, f"{name} never said {text!r}:\n{log[-3000:]}"
        time.sleep(0.3)
    return log


def asked(engine: Daemon, name: str, line: str, answer: str) -> None:
    """Type a line on the serial console until the answer is there."""
    command = [str(BIN / "trivet"), "vm", "console", name]
    console = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "TRIVET_HOST": engine.address}
    )
    try:
        assert console.stdin is not None
        deadline = time.monotonic() + PATIENCE
        while answer not in engine.ok("logs", name):
            assert time.monotonic() < deadline
            console.stdin.write(f"\n{line}\n".encode())
            console.stdin.flush()
            time.sleep(1)
    finally:
        console.kill()
        console.wait()


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
    """A machine comes back from off with its disk, stands still while paused, and is reset on request."""
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
    while engine.ok("logs", "box").count("tiny: up with") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.3)
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
