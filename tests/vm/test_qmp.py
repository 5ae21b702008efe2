"""The control protocol, spoken with a real QEMU that has no machine to run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.hypervisor import program
from trivet.hypervisor.qmp import Qmp, QmpRefused, QmpUnavailable


@pytest.fixture
def control(short_path: Path) -> Iterator[Path]:
    """The control socket of a QEMU without a machine; it comes up in a moment."""
    qemu = program.QEMU.find()
    if qemu is None:
        pytest.skip(f"needs {program.QEMU.package}")
    path = short_path / "qmp.sock"
    chardev = f"socket,id=qmp,path={path},server=on,wait=off"
    process = subprocess.Popen(
        [qemu, "-machine", "none", "-nodefaults", "-nographic", "-chardev", chardev, "-mon", "chardev=qmp,mode=control"]
    )
    try:
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield path
    finally:
        process.kill()
        process.wait()


def test_pause_and_resume(control: Path) -> None:
    """A machine is stopped and goes on, and says so."""
    with Qmp(control) as qmp:
        qmp.pause()
        assert qmp.status() == "paused"
        qmp.resume()
        assert qmp.status() == "running"


def test_clients_take_turns(control: Path) -> None:
    """A second conversation begins when the first has ended."""
    for _ in range(3):
        with Qmp(control) as qmp:
            assert qmp.status() == "running"


def test_refusal_names_the_command(control: Path) -> None:
    """What QEMU refuses is told with the command's name and QEMU's reason."""
    with Qmp(control) as qmp, pytest.raises(QmpRefused, match="machine refused balloon: No balloon device"):
        qmp.balloon(1 << 28)


def test_commands_in_turn_leave_the_conversation_in_order(control: Path) -> None:
    """Of commands that are begun together one is refused, the others are carried out, and what is asked next is too."""
    with Qmp(control) as qmp:
        answers = qmp.in_turn(("balloon", {"value": 1 << 28}), ("stop", {}), ("query-name", {}))
        with pytest.raises(QmpRefused, match="machine refused balloon"):
            next(answers)
        assert qmp.status() == "paused"
        assert list(qmp.in_turn(("cont", {}), ("query-name", {}))) == [{}, {}]
        assert qmp.status() == "running"


def test_machine_that_ends_while_asked(control: Path) -> None:
    """A machine that goes away in the middle of a conversation is told."""
    with Qmp(control) as qmp:
        qmp.execute("quit")
        with pytest.raises(QmpUnavailable, match="does not answer"):
            qmp.status()


def test_nobody_listens(tmp_path: Path) -> None:
    """A socket that isn't there is named."""
    with pytest.raises(QmpUnavailable, match=r"qmp\.sock"):
        Qmp(tmp_path / "qmp.sock")
