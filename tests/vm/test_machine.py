"""What only a machine has: a kernel of its own, a boot that can fail, a hypervisor that can die."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.conformance.harness import Harness

from trivet.base.error import Unsupported
from trivet.hypervisor.qmp import Qmp
from trivet.isolation import fork, nursery, provision, vm
from trivet.isolation.boot import AgentSilent, DriveDamaged, MachineEnded, MachineSilent
from trivet.isolation.failure import SetupFailed
from trivet.isolation.plan import Attachment, Root, Security
from trivet.isolation.vm import VmDriver
from trivet.kernel import capability

pytestmark = pytest.mark.vm

PRIVILEGED = Security(capabilities=capability.DEFAULT, privileged=True, seccomp="unconfined")


def test_kernel_inside_is_its_own(machine: Harness) -> None:
    """The kernel inside is another one than the host's."""
    result = machine.run("uname", "-r")
    assert result.text
    assert result.text != platform.release()


def test_image_without_a_shell(driver: VmDriver, bare_image: Path, tmp_path: Path, run_directory: Path) -> None:
    """An image of nothing but one static program runs: the machine brings all else itself."""
    machine = Harness(driver, bare_image, tmp_path, run_directory)
    try:
        result = machine.run("/uname", "-s")
        assert (result.code, result.text) == (0, "Linux")
    finally:
        machine.close()


def test_panic_of_a_running_guest(machine: Harness) -> None:
    """A guest whose kernel panics has ended with 137, and its status says what the kernel said."""
    result = machine.start("sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60", security=PRIVILEGED).wait()
    assert result.code == 137
    ending = machine.becomes("exited").exit
    assert ending is not None
    assert ending.error == "the guest's kernel panicked: sysrq triggered crash"
    assert "Kernel panic" in Path(machine.plan.directory, "console.log").read_text(errors="replace")


def test_killed_hypervisor(machine: Harness) -> None:
    """A machine whose QEMU is killed has ended with 137."""
    session = machine.start("sleep", "600")
    os.kill(machine.status().pid, signal.SIGKILL)
    assert session.wait().code == 137
    ending = machine.becomes("exited").exit
    assert ending is not None
    assert ending.error == "the machine was killed"


def test_hung_agent(machine: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that doesn't answer is told with the command that helps, and SIGKILL ends its machine all the same."""
    session = machine.start("sleep", "600")
    with Qmp(Path(machine.plan.directory, "qmp.sock")) as qmp:
        qmp.pause()  # to us it looks like a guest that hangs
    monkeypatch.setattr(vm, "_ANSWER", 0.5)
    with pytest.raises(AgentSilent, match="did not answer") as caught:
        machine.exec("true")
    assert caught.value.hint == f"trivet restart {machine.plan.name}"
    machine.driver.signal(machine.plan, signal.SIGKILL)
    assert session.wait().code == 137


@pytest.mark.parametrize("which", ["image", "upper"])
def test_damaged_drive(machine: Harness, tmp_path: Path, which: str) -> None:
    """A drive that holds no file system is named, and another machine with the same image is not disturbed."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"not a file system" * 100000)
    root = machine.plan.root
    damaged = Root(
        form="drive",
        lowers=(str(garbage),) if which == "image" else root.lowers,
        upper=str(garbage) if which == "upper" else root.upper,
    )
    with pytest.raises(DriveDamaged, match=f"cannot mount drive {garbage} of instance {machine.plan.name}"):
        machine.start("true", root=damaged)
    machine.driver.release(machine.plan)
    assert machine.run("true").code == 0


def test_machine_ends_with_its_monitor(machine: Harness) -> None:
    """A machine whose monitor is killed powers off: nobody could see its output any more."""
    session = machine.start("sleep", "600")
    qemu = machine.status().pid
    os.kill(_monitor_of(qemu), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{qemu}/cwd").exists():
        assert time.monotonic() < deadline, "QEMU outlives its monitor"
        time.sleep(0.02)
    session.channel.close()
    assert machine.status().word == "lost"


def test_boot_that_panics(machine: Harness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel that panics while it boots is told in one sentence, with the console to read."""
    broken = tmp_path / "agent"
    broken.write_text("not a program")
    monkeypatch.setattr(provision, "AGENT", broken)
    with pytest.raises(MachineEnded, match="had a kernel panic: No working init found") as caught:
        machine.start("true")
    assert caught.value.hint is not None
    assert "console.log" in caught.value.hint


def test_a_drive_that_is_not_there_is_named(machine: Harness, tmp_path: Path) -> None:
    """The machine isn't tried another way, and others go on being forked."""
    gone = Root(form="drive", lowers=(str(tmp_path / "no.erofs"),), upper=machine.root.upper)
    with pytest.raises(SetupFailed, match=r"no\.erofs: no such file"):
        machine.start("true", root=gone)
    assert fork.noted(machine.plan) == fork.FORKED
    machine.start("sleep", "600")
    assert fork.noted(machine.plan) == fork.FORKED


def test_hypervisor_that_refuses(machine: Harness) -> None:
    """What QEMU itself says when it can't start is in the error."""
    nothing = Root(form="drive", lowers=("/dev/null",), upper="/dev/null")
    with pytest.raises(MachineEnded, match="dev/fdset"):
        machine.start("true", root=nothing)


def test_silent_machine_is_given_up(machine: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that doesn't answer in time is tried twice, told, and its release leaves no process."""
    monkeypatch.setattr(nursery, "_PATIENCE", dict.fromkeys(nursery._PATIENCE, 0.3))
    with pytest.raises(MachineSilent, match="did not answer"):
        machine.start("true", memory=217 << 20)  # a shape that has no template
    name, directory = machine.plan.name, machine.plan.directory
    machine.close()
    assert subprocess.run(["pgrep", "-f", f"qemu.*{name}"], capture_output=True).returncode == 1
    assert not Path(directory).exists()


def test_network_of_the_host_is_refused(machine: Harness) -> None:
    """A machine can't use the host's network, and says what it can use."""
    with pytest.raises(Unsupported, match="at level vm cannot use network host") as caught:
        machine.start("true", attachments=(Attachment(kind="host", network="host"),))
    assert caught.value.hint


def test_stalled_session_blocks_no_other(machine: Harness) -> None:
    """A client that doesn't read its flood of output stops only its own session."""
    machine.start("sleep", "600")
    stalled = machine.exec("cat", "/dev/zero")
    time.sleep(1)
    answer = machine.exec("echo", "still here").wait(20)
    assert answer.text == "still here"
    stalled.channel.close()


def test_closed_session_is_killed(machine: Harness) -> None:
    """A program whose only client went away is killed in the guest."""
    machine.start("sleep", "600")
    session = machine.exec("sh", "-c", "echo up; exec sleep 4242")
    session.until(b"up")
    session.channel.close()
    deadline = time.monotonic() + 20
    while any("4242" in row.command for row in machine.driver.processes(machine.plan)):
        assert time.monotonic() < deadline, "the program outlives its client"


def _monitor_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[1])
