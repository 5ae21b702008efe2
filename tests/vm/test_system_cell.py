"""What QEMU of a machine of its own, and its TPM, would have if its guest took them over."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS, asked, said
from tests.vm.test_cell import CAPABILITIES, KINDS, names, status_of, within

from trivet.launch.channel import Channel

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS, "swtpm", "setpriv")]


def children(pid: int) -> list[int]:
    """List the processes of a pid namespace, by their pids out here, without its first one."""
    own = Path(f"/proc/{pid}/ns/pid").readlink()
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and int(path.name) != pid and Path(path, "ns/pid").readlink() == own:
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_a_machine_and_its_tpm_live_in_a_cell(engine: Daemon, tiny: list[str]) -> None:
    """Each is a user of its own without a right or a path to a disk, and everything that a machine has works."""
    engine.ok("vm", "create", "cell", *tiny[:-2], "--tpm", "--add-disk", "data:8m", "--start")
    said(engine, "cell", "tiny# ")
    pid = engine.client.instances.get("cell").pid
    (tpm,) = children(pid)
    users = [status_of(each)["Uid"].split()[0] for each in (pid, tpm)]
    assert "0" not in users
    assert len(set(users)) == 2
    for each in (pid, tpm):
        status = status_of(each)
        assert {status[name] for name in CAPABILITIES} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"]) == ("1", "2", "")
        for kind in KINDS:
            assert Path("/proc", str(each), "ns", kind).readlink() != Path("/proc/self/ns", kind).readlink()
        assert names(f"/proc/{each}/root") <= {
            *("usr", "lib", "lib64", "etc", "dev", "proc", "kernel", "initrd", "tpm")
        }
    disk = Path(engine.client.machines.get("cell").disks[0].path)
    for path in (
        "/etc/passwd",
        "/run",
        "/sys",
        "/dev/net/tun",
        "/tpm/state/tpm2-00.permall",
        str(disk),
        str(engine.root),
    ):
        assert within(pid, int(users[0]), "/usr/bin/cat", path).returncode, path
        assert within(pid, int(users[0]), "/usr/bin/ls", f"{path}/.").returncode, path
    assert within(pid, int(users[0]), "/usr/bin/cat", "/proc/self/net/dev").stdout.count(b":") == 1
    for place in ("/", "/usr", "/tpm", "/dev", "/kernel"):
        assert within(pid, int(users[0]), "/usr/bin/touch", f"{place}/x").returncode, place
    assert Path(disk.parent, "tpm").stat().st_uid == int(users[1])
    assert list(Path(disk.parent, "tpm").glob("tpm2*"))


def test_its_screen_is_on_a_socket_that_only_root_reaches(engine: Daemon) -> None:
    """VNC answers where `vm info` says, again and again, also after the engine was killed."""
    display = Path(engine.client.machines.get("cell").display)
    assert display.stat().st_mode & 0o777 == 0o600
    engine.kill()
    engine.start()
    assert engine.client.machines.get("cell").display == str(display)
    for _ in range(2):
        with Channel.connect(display) as channel:
            assert channel.detach().recv(12) == b"RFB 003.008\n"


def test_it_goes_back_with_its_tpm(engine: Daemon) -> None:
    """Memory, disks and TPM are of one moment, though QEMU could open none of their files."""
    asked(engine, "cell", "echo then > /word; sync; echo wrote $?", "wrote 0")
    engine.ok("snapshot", "cell", "then")
    asked(engine, "cell", "echo now > /word; sync; cat /word", "\nnow")
    engine.ok("snapshot", "revert", "cell", "then")
    asked(engine, "cell", "echo it is $(cat /word)", "it is then")
    engine.ok("vm", "rm", "-f", "cell")
