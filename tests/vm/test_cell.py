"""What a machine's QEMU, taken over by its guest, would have: looked at from outside, and tried from within."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conformance.harness import Harness

from trivet.isolation import cell, fork, machine
from trivet.isolation.plan import Mount
from trivet.isolation.vm import VmDriver

pytestmark = pytest.mark.vm

KINDS = ("mnt", "pid", "net", "ipc", "uts")
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def status_of(pid: int) -> dict[str, str]:
    """Read /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def names(directory: str) -> set[str]:
    """List a directory."""
    return {path.name for path in Path(directory).iterdir()}


def within(pid: int, user: int, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program of the host's in the place of a machine's QEMU, as its user and with no more rights."""
    enter = ["nsenter", "-t", str(pid), "-m", "-n", "-i", "-u", "-p", "-r", "-w"]
    drop = ["/usr/bin/setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"]
    rights = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    return subprocess.run([*enter, *drop, *rights, *words], capture_output=True, check=False, timeout=60)


def test_every_machine_has_a_user_and_a_view_of_its_own(driver: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """No capability, no new privileges, a filter, namespaces that aren't the host's, and a root with nothing in it."""
    forks = [make(driver) for _ in range(2)]
    pids = []
    for each in forks:
        each.start("sleep", "600")
        assert fork.noted(each.plan) == fork.FORKED
        pids.append(driver.status(each.plan).pid)
    users = [status_of(pid)["Uid"].split() for pid in pids]
    assert [set(ids) for ids in users] == [{str(cell.user(each.plan))} for each in forks]
    assert users[0] != users[1]
    for pid in pids:
        status = status_of(pid)
        assert {status[name] for name in CAPABILITIES} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"]) == ("1", "2", "")
        for kind in KINDS:
            own, host = (Path("/proc", who, "ns", kind).readlink() for who in (str(pid), "self"))
            assert own != host
        shown = names(f"/proc/{pid}/root")
        assert shown <= {"usr", "lib", "lib64", "etc", "dev", "proc", "kernel", "initramfs"}
        assert names(f"/proc/{pid}/root/dev") <= {"null", "urandom", "kvm"}
        assert names(f"/proc/{pid}/root/etc") <= {"ld.so.cache"}


def test_nothing_can_be_done_from_a_machines_place(driver: VmDriver, make: Callable[[VmDriver], Harness]) -> None:
    """Its user writes nowhere, sees no other process, no file of the host's or of a neighbour's, and no network."""
    harness, neighbour = make(driver), make(driver)
    for each in (harness, neighbour):
        each.start("sleep", "600")
    pid, user = driver.status(harness.plan).pid, cell.user(harness.plan)
    assert within(pid, user, "/usr/bin/id", "-u").stdout == b"%d\n" % user
    for place in ("/", "/dev", "/usr", "/etc", "/kernel", "/proc"):
        assert within(pid, user, "/usr/bin/touch", f"{place}/x" if place != "/kernel" else place).returncode, place
    for path in (
        *("/etc/passwd", "/etc/shadow", "/root", "/home", "/var", "/run", "/sys", "/dev/net/tun", "/dev/mem"),
        *(harness.plan.root.upper, harness.plan.root.lowers[0], neighbour.plan.root.upper, neighbour.plan.directory),
        str(Path(neighbour.plan.directory, machine.QMP)),
    ):
        assert within(pid, user, "/usr/bin/ls", path).returncode, path
    seen = within(pid, user, "/usr/bin/ls", "/proc").stdout.split()
    assert sum(word.isdigit() for word in seen) <= 3  # QEMU, and who looks
    assert within(pid, user, "/usr/bin/cat", "/proc/self/net/dev").stdout.count(b":") == 1
    for words in (("mount", "-t", "tmpfs", "x", "/usr"), ("unshare", "-U", "true"), ("chroot", "/usr", "true")):
        if words[0] != "unshare":  # users may be allowed namespaces; QEMU's filter forbids it to QEMU
            assert within(pid, user, f"/usr/bin/{words[0]}", *words[1:]).returncode, words
    harness.exec("true").wait()


def test_a_machine_with_shared_files_has_the_same_view(
    driver: VmDriver, make: Callable[[VmDriver], Harness], tmp_path: Path
) -> None:
    """It has no capability either, and sees the file server's socket besides."""
    harness = make(driver)
    harness.start("sleep", "600", mounts=(Mount(kind="bind", source=str(tmp_path), target="/data"),))
    pid = driver.status(harness.plan).pid
    assert {status_of(pid)[name] for name in CAPABILITIES} == {"0" * 16}
    assert names(f"/proc/{pid}/root") <= {
        *("usr", "lib", "lib64", "etc", "dev", "proc", "kernel", "initramfs", "share.sock")
    }
