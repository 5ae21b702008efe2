"""The contract, part six: limits are enforced, names and networks are one's own."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from tests.conformance.harness import Harness

from trivet.isolation.driver import Resizable
from trivet.isolation.plan import Limits


def test_memory_limit_kills(instance: Harness) -> None:
    """A program that takes more memory than it may is killed, and the exit says why."""
    session = instance.start("inside", "eat", "600", memory=64 << 20 if instance.level != "vm" else 256 << 20)
    result = session.wait()
    assert result.code == 137
    assert result.exit.out_of_memory
    status = instance.becomes("exited")
    assert status.exit is not None
    assert status.exit.out_of_memory == instance.expect("out of memory is told")


def test_memory_below_the_limit_is_given(instance: Harness) -> None:
    """Memory below the limit is there to be used."""
    session = instance.start("inside", "eat", "30", memory=64 << 20 if instance.level != "vm" else 256 << 20)
    session.until(b"full")


def test_pids_limit(instance: Harness) -> None:
    """A program can't have more tasks than it may."""
    made, _, reason = instance.run("inside", "forks", "100", pids=20).text.partition(" ")
    assert 10 <= int(made) < 20
    assert reason != "all"


def test_cpu_limit(instance: Harness) -> None:
    """A program that may use a quarter of a core gets about that, and never half of it."""
    if instance.level == "vm":
        pytest.skip("a VM has whole processors; its share is the host's scheduling")
    used, passed = map(int, instance.run("inside", "spin", "1500", cpus=0.25).text.split())
    assert used < 0.5 * passed


def test_resize(instance: Harness) -> None:
    """Limits of a running instance can be raised and lowered."""
    instance.only_with("resize")
    assert isinstance(instance.driver, Resizable)
    session = instance.start("sh", "-c", "echo up; read x; inside forks 100", pids=10, stdin=True)
    session.until(b"up")
    plan = msgspec.structs.replace(instance.plan, limits=Limits(pids=50, memory=200 << 20))
    instance.driver.resize(plan)
    assert instance.driver.stats(plan).memory_limit == 200 << 20
    session.channel.write(b"\n")
    made = int(session.wait().text.split()[1])
    assert 35 < made < 50


def test_hostname(instance: Harness) -> None:
    """The instance has its own name where it has names of its own, and the host keeps its."""
    name = Path("/proc/sys/kernel/hostname")
    host = name.read_text()
    inside = instance.run("hostname").text
    assert (inside == "box") == instance.expect("own hostname")
    assert name.read_text() == host


def test_process_namespace(instance: Harness) -> None:
    """A contained program is process 1 and sees no process of the host."""
    session = instance.shell("echo $$; ls -d /proc/[0-9]* | wc -l")
    first, count = session.lines
    if instance.expect("pid of the program") == 1:
        assert first == "1"
    if not instance.expect("sees host processes"):
        assert int(count) < 80 if instance.level == "vm" else int(count) <= 4


def test_network_none(instance: Harness) -> None:
    """Without a network the instance has loopback, up, and nothing else."""
    instance.only_with("own network")
    assert instance.shell("ls /sys/class/net; cat /sys/class/net/lo/operstate").lines[0] == "lo"
    assert "127.0.0.1" in instance.shell("ip -4 addr show lo").stdout.decode()


def test_sysctl(instance: Harness) -> None:
    """Kernel parameters of the instance's own namespaces are set, and the host's stay."""
    instance.only_with("sysctls set")
    sysctls = (("net.ipv4.ip_default_ttl", "77"), ("kernel.msgmax", "9000"))
    assert instance.shell("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax", sysctls=sysctls).lines == [
        "77",
        "9000",
    ]


def test_kernel_files_are_masked(instance: Harness) -> None:
    """What /proc and /sys tell about the kernel is hidden or read-only where it isn't the host's own view."""
    instance.only_with("kernel files hidden")
    result = instance.shell("wc -c < /proc/keys; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic; echo $?")
    assert result.lines == ["0", "0", "1"], result


def test_kernel(instance: Harness) -> None:
    """A VM boots a kernel of its own; the other levels share the host's."""
    inside = instance.run("cat", "/proc/sys/kernel/random/boot_id").text
    host = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (inside != host) == instance.expect("own kernel")


def test_devices_of_the_host(instance: Harness) -> None:
    """The host's devices are seen only where /dev is the host's."""
    host = {path.name for path in Path("/dev").iterdir()} - {"null", "zero", "full", "random", "urandom", "tty"}
    devices = {name for name in host if stat.S_IFMT(Path("/dev", name).lstat().st_mode) in (stat.S_IFCHR, stat.S_IFBLK)}
    inside = set(instance.run("ls", "/dev").lines)
    assert devices & inside <= {"console", "ptmx"} or instance.expect("devices of the host")
    assert devices <= inside or not instance.expect("devices of the host")
