"""What broke other container runtimes, tried on ours (numbers are the rows of SECURITY.md's table)."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from tests.conformance.harness import Harness
from tests.unit.test_seccomp import DENIED

from trivet.base.error import TrivetError
from trivet.isolation.plan import File, Level, Security
from trivet.kernel import capability, syscall
from trivet.launch.spawn import launcher_descriptor

LINKED = ("dev", "proc", "sys", "etc", "run", "tmp")
EPERM, ENOSYS = 1, 38


@pytest.fixture
def level() -> Level:
    """The container level only: the others are not contained by the host's kernel."""
    return Level.CONTAINER


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory on the host that nothing inside may reach."""
    place = tmp_path / "canary"
    (place / "pts").mkdir(parents=True)
    for name in ("null", "hosts", "self", "file"):
        (place / name).write_text(f"untouched {name}\n")
    return place


def picture(place: Path) -> dict[str, tuple[int, str]]:
    """Take everything of a tree that an attack would change."""
    return {
        str(path.relative_to(place)): (path.lstat().st_mode, path.read_text() if path.is_file() else "")
        for path in sorted(place.rglob("*"))
    }


def hostile(instance: Harness, tmp_path: Path, links: dict[str, str]) -> None:
    """Lay a layer of links over the image."""
    layer = tmp_path / "hostile"
    for name, target in links.items():
        (layer / name).parent.mkdir(parents=True, exist_ok=True)
        (layer / name).symlink_to(target)
    instance.root = msgspec.structs.replace(instance.root, lowers=(str(layer), *instance.root.lowers))


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("way", ["absolute", "dots"])
def test_row_6_linked_directories_stay_inside(
    instance: Harness, tmp_path: Path, canary: Path, name: str, way: str
) -> None:
    """A top directory of the image that is a link to the host changes nothing there (CVE-2026-41579, -47766)."""
    target = str(canary) if way == "absolute" else "../" * 20 + str(canary).lstrip("/")
    before = picture(canary)
    hostile(instance, tmp_path, {name: target})
    try:
        result = instance.run("/bin/busybox", "sh", "-c", "echo inside > /file")
        assert result.code == 0
    except TrivetError:
        pass  # refused is as good
    assert picture(canary) == before


@pytest.mark.parametrize("path", ["etc/hosts", "dev/null", "proc/sys", "sys/firmware"])
def test_row_6_linked_mount_targets_stay_inside(instance: Harness, tmp_path: Path, canary: Path, path: str) -> None:
    """A mount target of the image that is a link to the host changes nothing there."""
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    before = picture(canary)
    hostile(instance, tmp_path, {path: str(canary / "hosts")})
    files = (File(target="/etc/hosts", source=str(tmp_path / "hosts"), content=b""),)
    try:
        instance.shell("echo overwritten > /etc/hosts; cat /etc/hosts", files=files)
    except TrivetError:
        pass
    assert picture(canary) == before


def test_row_1_launcher_cannot_be_overwritten(instance: Harness) -> None:
    """Neither a program that is /proc/self/exe nor one that writes to every /proc/PID/exe changes the launcher."""
    before = _launcher()
    try:
        assert instance.run("/proc/self/exe").code != 0
    except TrivetError:
        pass
    script = "echo up; while :; do for p in /proc/[0-9]*; do echo x 2>/dev/null > $p/exe; done; done"
    session = instance.start("sh", "-c", script)
    session.until(b"up")
    for _ in range(20):
        assert instance.exec("true").wait().code == 0
    assert _launcher() == before


def _launcher() -> bytes:
    return hashlib.sha256(Path(f"/proc/self/fd/{launcher_descriptor()}").read_bytes()).digest()


def test_row_2_descriptors_of_the_engine_stay_outside(instance: Harness) -> None:
    """Two hundred inheritable descriptors of the engine don't reach the program, nor one that exec adds."""
    opened = [os.open("/", os.O_RDONLY) for _ in range(200)]
    try:
        for descriptor in opened:
            os.set_inheritable(descriptor, True)
        session = instance.start("sh", "-c", "inside descriptors; exec sleep 60")
        session.until(b"2\n")
        assert session.stdout == b"0\n1\n2\n"
        assert instance.exec("inside", "descriptors").wait().lines == ["0", "1", "2"]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_row_3_proc_is_the_kernels(instance: Harness, tmp_path: Path) -> None:
    """With a /proc full of the image's own files, the program's limits and names are set all the same."""
    layer = tmp_path / "fake"
    (layer / "proc/sys/kernel").mkdir(parents=True)
    (layer / "proc/self").mkdir()
    (layer / "proc/sys/kernel/domainname").write_text("fake")
    instance.root = msgspec.structs.replace(instance.root, lowers=(str(layer), *instance.root.lowers))
    result = instance.shell("stat -f -c %T /proc; cat /proc/sys/kernel/msgmax", sysctls=(("kernel.msgmax", "9001"),))
    assert result.lines == ["proc", "9001"]
    assert (layer / "proc/sys/kernel/domainname").read_text() == "fake"


def test_row_4_masks_are_the_null_device(instance: Harness) -> None:
    """What hides a file of /proc is the null device itself (CVE-2025-31133)."""
    assert instance.run("stat", "-c", "%t:%T", "/proc/keys").text == "1:3"


@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/power/state"])
def test_row_4_kernel_switches_are_read_only(instance: Harness, path: str) -> None:
    """The kernel's switches can't be written by root inside."""
    result = instance.shell(f"echo x > {path}; echo $?")
    assert result.lines == ["1"]


def test_row_5_console_is_the_programs_own(instance: Harness) -> None:
    """/dev/console is the terminal of the program, from its own devpts (CVE-2025-52565)."""
    result = instance.start("sh", "-c", "tty; stat -c %t:%T /dev/console $(tty)", terminal=True).wait()
    lines = result.stdout.decode().split()
    assert lines[0] == "/dev/pts/0"
    assert lines[1] == lines[2] == "88:0"


def test_row_9_release_agent_is_out_of_reach(instance: Harness) -> None:
    """Root inside can neither write the cgroup tree nor mount it anew (CVE-2022-0492)."""
    script = """
    for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo made $d; done
    for f in release_agent notify_on_release memory.limit_in_bytes cgroup.procs devices.allow; do
        for p in /sys/fs/cgroup/*/$f; do test -e $p && echo 1 2>/dev/null > $p && echo wrote $p; done
    done
    mkdir /m; mount -t cgroup -o memory cgroup /m 2>/dev/null && echo mounted
    unshare -UrC mount -t cgroup -o memory cgroup /m 2>/dev/null && echo mounted with a user namespace
    echo done"""
    assert instance.shell(script).lines == ["done"]


def test_row_19_system_calls(instance: Harness) -> None:
    """The calls that broke out of containers before answer EPERM, clone3 ENOSYS, by the kernel's own word."""
    numbers = syscall.numbers(platform.machine())
    asked = [name for name in DENIED.split() if name in numbers]
    result = instance.run("inside", "calls", *(str(numbers[name]) for name in (*asked, "clone3")))
    answers = [int(line.split()[1]) for line in result.lines]
    assert dict(zip((*asked, "clone3"), answers, strict=True)) == dict.fromkeys(asked, EPERM) | {"clone3": ENOSYS}


def test_row_19_without_the_filter_the_probe_gets_through(instance: Harness) -> None:
    """Without the filter the same probe reaches the kernel: it is the filter that answers above."""
    security = Security(capabilities=capability.DEFAULT, seccomp="unconfined")
    numbers = syscall.numbers(platform.machine())
    result = instance.run("inside", "calls", str(numbers["userfaultfd"]), str(numbers["keyctl"]), security=security)
    assert all(int(line.split()[1]) != EPERM for line in result.lines)


def test_row_19_socket_families(instance: Harness) -> None:
    """Sockets to the host's hypervisor and the kernel's crypto are refused, unix ones are not."""
    assert instance.run("inside", "families", "1", "38", "40").lines == ["1 0", "38 1", "40 1"]


def test_row_19_no_new_user_namespace(instance: Harness) -> None:
    """A user namespace, the door to most kernel exploits, can't be made."""
    result = instance.shell("unshare -U true; echo $?")
    assert result.lines == ["1"]
    assert b"Operation not permitted" in result.stderr


def test_row_20_host_disks_are_out_of_reach(instance: Harness) -> None:
    """A node of the host's disk can be made and not opened."""
    numbers = next(line.split()[:2] for line in Path("/proc/partitions").read_text().splitlines()[2:])
    result = instance.shell(f"mknod /disk b {numbers[0]} {numbers[1]} && head -c 1 /disk; echo $?")
    assert result.lines == ["1"]
    assert b"Operation not permitted" in result.stderr


def test_row_46_no_raw_sockets(instance: Harness) -> None:
    """Without NET_RAW nobody can forge packets."""
    result = instance.shell("ping -c 1 127.0.0.1; echo $?")
    assert result.lines[-1] == "1"
    assert b"ermission denied" in result.stderr + result.stdout


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _kernel(path: Path) -> None:
    path.symlink_to("/proc/kmsg")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize("name", ["passwd", "group"])
@pytest.mark.parametrize("make", [_fifo, _endless, _kernel, _huge])
def test_row_16_hostile_user_files(instance: Harness, tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    """A user file that is a FIFO, a device, a kernel file or a gigabyte costs no time and no trust (CVE-2024-9676)."""
    layer = tmp_path / "hostile"
    (layer / "etc").mkdir(parents=True)
    make(layer / "etc" / name)
    instance.root = msgspec.structs.replace(instance.root, lowers=(str(layer), *instance.root.lowers))
    with suppress(TrivetError):
        assert instance.run("grep", "^Uid", "/proc/self/status", user="1000").text.split()[1] == "1000"
    with pytest.raises(TrivetError):
        instance.run("true", user="eve:eve")


def test_row_18_run_directory_is_private(instance: Harness) -> None:
    """The monitor's directory and socket are for the engine's user only."""
    instance.start("sleep", "60")
    directory = Path(instance.plan.directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "monitor.sock").stat().st_mode & 0o777 == 0o600


def test_privileged_means_it(instance: Harness) -> None:
    """A privileged container has the host's devices, capabilities and kernel files, because it was asked for."""
    security = Security(capabilities=capability.DEFAULT, privileged=True)
    script = "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp && echo mounted; ls /dev"
    lines = instance.shell(script, security=security).lines
    assert int(lines[0].split()[1], 16) == capability.mask(capability.available())
    assert lines[1].split()[1] == "0"
    assert lines[2] == "mounted"
    assert {"null", "kmsg"} <= set(lines[3:])
