"""Users of an instance's own: root inside is nobody outside, and files still belong to whom they should."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    """A name for instances of this test, which go afterwards."""
    word = f"users-{os.urandom(3).hex()}"
    yield word
    for instance in daemon.client.instances.list(all=True):
        if instance.name.startswith(word):
            daemon.ok("rm", "-f", "-v", instance.name)


def _owner(pid: int) -> tuple[int, int]:
    """Tell who a process is to the host: user and group."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["Uid"].split()[0]), int(status["Gid"].split()[0])


def test_root_inside_is_nobody_outside(daemon: Daemon, busybox: str, name: str) -> None:
    """Each container has ids of its own, which inspect tells; its namespaces belong to it, the network's too."""
    firsts = []
    for number in range(2):
        daemon.ok("run", "-d", "--name", f"{name}{number}", busybox, "sleep", "600")
        seen = daemon.client.instances.get(f"{name}{number}")
        assert seen.users is not None
        assert _owner(seen.pid) == (seen.users.first, seen.users.first)
        assert seen.users.size == 65536
        assert daemon.ok("exec", seen.name, "cat", "/proc/self/uid_map").split() == [
            "0",
            str(seen.users.first),
            "65536",
        ]
        assert Path(f"/proc/{seen.pid}/ns/user").stat().st_ino != Path("/proc/self/ns/user").stat().st_ino
        assert daemon.ok("exec", seen.name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/lo/proxy_arp; id -u") == "0"
        firsts.append(seen.users.first)
    assert abs(firsts[0] - firsts[1]) >= 65536
    daemon.ok("restart", "-t", "0", f"{name}0")
    again = daemon.client.instances.get(f"{name}0")
    assert again.users is not None
    assert again.users.first == firsts[0]
    assert _owner(again.pid)[0] == firsts[0]
    assert [row.user for row in daemon.client.instances.top(f"{name}0")] == ["root"]


@pytest.mark.parametrize("options", [("--userns", "host"), ("--privileged",)], ids=["userns", "privileged"])
def test_the_host_s_users(daemon: Daemon, busybox: str, name: str, options: tuple[str, ...]) -> None:
    """--userns host and --privileged have the host's users, and inspect says so."""
    daemon.ok("run", "-d", "--name", name, *options, busybox, "sleep", "600")
    seen = daemon.client.instances.get(name)
    assert seen.users is None
    assert _owner(seen.pid) == (0, 0)


def test_files_belong_to_whom_they_should(daemon: Daemon, busybox: str, name: str, tmp_path: Path) -> None:
    """Image, volume, bind mount, cp, commit: ids inside are the ids on the disk, whoever looks."""
    (tmp_path / "mine").write_text("from the host")
    os.chown(tmp_path / "mine", 1234, 1235)
    script = (
        "touch /data/root /bind/root /tmp/r; touch /data/u; chown 7:8 /data/u; stat -c %u:%g /bind/mine /etc/passwd"
    )
    options = ["-v", f"{name}:/data", "-v", f"{tmp_path}:/bind"]
    seen = daemon.ok("run", "--name", name, *options, busybox, "sh", "-c", script).split()
    assert seen == ["1234:1235", "0:0"]
    volume = Path(daemon.client.volumes.get(name).mountpoint)
    found = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (*volume.iterdir(), *tmp_path.iterdir())}
    assert found == {"root": (0, 0), "u": (7, 8), "mine": (1234, 1235)}
    other = daemon.ok("run", "--rm", "-v", f"{name}:/data", busybox, "stat", "-c", "%u:%g", "/data/u")
    assert other == daemon.ok(
        "run", "--rm", "--userns", "host", "-v", f"{name}:/data", busybox, "stat", "-c", "%u:%g", "/data/u"
    )
    assert other == "7:8"
    for running in (False, True):  # cp goes through the container while there is one
        if running:
            daemon.ok("run", "-d", "--name", f"{name}b", busybox, "sleep", "600")
        target = f"{name}b" if running else name
        daemon.ok("cp", "-a", tmp_path / "mine", f"{target}:/tmp/mine")
        daemon.ok("cp", f"{target}:/tmp/mine", tmp_path / f"out-{running}")
        assert (tmp_path / f"out-{running}").read_text() == "from the host"
    assert daemon.ok("exec", f"{name}b", "stat", "-c", "%u:%g", "/tmp/mine") == "1234:1235"


def test_networks_of_the_host_and_none(daemon: Daemon, busybox: str, name: str) -> None:
    """With the host's network, and with none, users are the container's own too."""
    for network in ("host", "none"):
        script = "cat /proc/self/uid_map; ls /sys/class/net; touch /sys/x 2>/dev/null || echo sealed"
        seen = daemon.ok("run", "--rm", "--name", f"{name}{network}", "--network", network, busybox, "sh", "-c", script)
        assert int(seen.split()[1]) > 1 << 30
        assert ("eth0" in seen) == (network == "host" and Path("/sys/class/net/eth0").exists())
        assert "sealed" in seen


@pytest.mark.parametrize("network", ["bridge", "none"])
def test_what_a_network_of_one_s_own_allows(daemon: Daemon, busybox: str, name: str, network: str) -> None:
    """Any port, and a ping by anybody who is somebody inside; IPv6 only where an address was given."""
    for number in range(2):  # the second one's namespaces may have been made ahead
        words = ("--rm", "--name", f"{name}{number}", "--network", network, busybox)
        ipv4, ipv6 = "/proc/sys/net/ipv4", "/proc/sys/net/ipv6/conf/default"
        shown = (f"{ipv4}/ip_unprivileged_port_start", f"{ipv4}/ping_group_range", f"{ipv6}/disable_ipv6")
        assert daemon.ok("run", *words, "cat", *shown, f"{ipv6}/accept_ra").split() == ["0", "0", "65535", "1", "0"]


def test_they_come_from_the_lobby(daemon: Daemon, busybox: str) -> None:
    """A container with users of its own never has the host's mounts, not even while it is set up."""
    assert "fork mounts=5" in daemon.ok("run", "--dry-run", busybox, "true")
    assert "fork" not in daemon.ok("run", "--dry-run", "--userns", "host", busybox, "true")


def test_one_cannot_touch_another(daemon: Daemon, busybox: str, name: str) -> None:
    """Also where they see one another's processes, root of one container can't signal or read another's."""
    daemon.ok("run", "-d", "--name", name, busybox, "sleep", "600")
    seen = daemon.client.instances.get(name)
    assert seen.users is not None
    child = os.fork()
    if child == 0:  # as root of another container would be, with all it sees
        os.setgroups([])
        os.setresgid(*[seen.users.first + 65536] * 3)
        os.setresuid(*[seen.users.first + 65536] * 3)
        try:
            os.kill(seen.pid, 0)
        except PermissionError:
            try:
                Path(f"/proc/{seen.pid}/root/etc").stat()
            except PermissionError:
                os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_restarted_engine_knows_them(short_path: Path) -> None:
    """Ranges outlive the engine: what runs keeps its own, what is made then gets another; nothing is left mounted."""
    engine = Daemon(short_path / "root", short_path / "run")
    engine.run.mkdir()
    engine.start()
    try:
        engine.ok("import", "-q", "-", "busybox:1", input=busybox_tar())
        engine.ok("run", "-d", "--name", "a", "busybox:1", "sleep", "600")
        before = engine.client.instances.get("a").users
        engine.kill()
        engine.start()
        engine.ok("run", "-d", "--name", "b", "busybox:1", "sleep", "600")
        after = [engine.client.instances.get(each).users for each in ("a", "b")]
        assert after[0] == before
        assert after[1] != before
        engine.ok("exec", "a", "true")
    finally:
        engine.clean()
    assert str(short_path) not in Path("/proc/self/mountinfo").read_text()


def _held(engine: Daemon) -> set[int]:
    """The numbers of the namespaces that the engine holds by a descriptor."""
    device = Path("/proc/self/ns/user").stat().st_dev
    found = set()
    for link in Path(f"/proc/{engine.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if link.stat().st_dev == device:
                found.add(link.stat().st_ino)
    return found


def _ready(engine: Daemon) -> set[int]:
    """The namespaces that it holds for instances to come, once it has some."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := _held(engine):
            return found
        time.sleep(0.05)
    raise AssertionError(f"no namespace is ready: {engine.log.read_text()[-2000:]}")


def test_namespaces_made_ahead(short_path: Path) -> None:
    """An engine that waits keeps none; after the first start there are some, which next starts take, one each."""
    engine = Daemon(short_path / "root", short_path / "run")
    engine.run.mkdir()
    engine.start()
    look = "readlink /proc/self/ns/user; cat /proc/self/uid_map; cat /sys/class/net/lo/operstate /proc/net/dev | wc -l"
    try:
        engine.ok("import", "-q", "-", "busybox:1", input=busybox_tar())
        assert not _held(engine)
        seen = []
        for number, options in enumerate([(), (), ("--network", "none"), ("--network", "host", "--userns", "private")]):
            ready = _ready(engine) if number else set()
            engine.ok("run", "-d", "--name", f"i{number}", *options, "busybox:1", "sleep", "600")
            space, _, first, _ = engine.ok("exec", f"i{number}", "sh", "-c", look).split()[:4]
            users = engine.client.instances.get(f"i{number}").users
            assert users is not None
            assert users.first == int(first)
            assert (int(space[6:-1]) in ready) == (0 < number < 3)
            seen.append(space)
        assert len(set(seen)) == 4
        for mine in ("i1", "i2"):  # a start of its own, with the ids it had
            first = engine.ok("exec", mine, "cat", "/proc/self/uid_map").split()[1]
            engine.ok("restart", "-t", "0", mine)
            assert engine.ok("exec", mine, "cat", "/proc/self/uid_map").split()[1] == first
            assert "127.0.0.1" in engine.ok("exec", mine, "ip", "addr", "show", "lo")
        engine.kill()
        engine.start()
        engine.ok("exec", "i2", "true")
        engine.ok("rm", "-f", "i0", "i1", "i2", "i3")
    finally:
        engine.clean()
    assert str(short_path) not in Path("/proc/self/mountinfo").read_text()
