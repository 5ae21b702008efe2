"""Namespaces shared with the host or with another instance."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Daemon


@pytest.fixture
def name(daemon: Daemon, busybox: str) -> Iterator[str]:
    """A running container."""
    word = f"shared-{os.urandom(3).hex()}"
    daemon.ok("run", "-d", "--name", word, busybox, "sleep", "777")
    yield word
    daemon.trivet("rm", "-f", word)


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_the_host_s(daemon: Daemon, busybox: str, kind: str) -> None:
    """With host, the namespace is the host's and so are the users; without, it is the container's own."""
    here = str(Path(f"/proc/self/ns/{kind}").readlink())
    look = f"readlink /proc/self/ns/{kind}; cat /proc/self/uid_map; hostname"
    shown = daemon.ok("run", "--rm", f"--{kind}", "host", busybox, "sh", "-c", look).split()
    assert (shown[0], shown[1:4]) == (here, ["0", "0", "4294967295"])
    assert (shown[-1] == platform.node()) == (kind == "uts")
    assert daemon.ok("run", "--rm", busybox, "readlink", f"/proc/self/ns/{kind}") != here


def test_the_host_s_shared_memory(daemon: Daemon, busybox: str) -> None:
    """With --ipc host, /dev/shm is the host's."""
    file = Path("/dev/shm", f"trivet-{os.urandom(4).hex()}")
    file.write_text("seen")
    try:
        assert daemon.ok("run", "--rm", "--ipc", "host", busybox, "cat", str(file)) == "seen"
        assert daemon.trivet("run", "--rm", busybox, "cat", str(file)).returncode == 1
    finally:
        file.unlink()


def test_another_s_processes(daemon: Daemon, busybox: str, name: str) -> None:
    """With container:NAME the other's processes are seen, its users being shared; its network is not."""
    other = f"{name}-b"
    daemon.ok("run", "-d", "--name", other, "--pid", f"container:{name}", busybox, "sleep", "888")
    seen = daemon.ok("exec", other, "ps")
    assert "sleep 777" in seen
    assert "sleep 888" in seen
    assert "sleep 888" in daemon.ok("exec", name, "ps")
    assert daemon.client.instances.get(other).users == daemon.client.instances.get(name).users
    assert daemon.ok("exec", other, "ip", "-o", "-4", "addr") != daemon.ok("exec", name, "ip", "-o", "-4", "addr")
    daemon.ok("restart", "-t", "0", other)
    daemon.ok("rm", "-f", other)
    daemon.ok("exec", name, "true")
    daemon.ok("restart", "-t", "0", name)


def test_what_cannot_be(daemon: Daemon, busybox: str, name: str) -> None:
    """What can't be shared is refused with the reason, and leaves nothing."""
    daemon.ok("kill", name)
    daemon.ok("wait", name)
    for options, says in (
        (("--pid", f"container:{name}"), "it is not running"),
        (("--pid", "container:nobody-here"), "nobody-here"),
        (("--pid", "nonsense"), "cannot share pid 'nonsense'"),
        (("--pid", "host", "--isolation", "vm"), "with a machine"),
        (("--pid", "host", "--userns", "private"), "with users of one's own"),
    ):
        done = daemon.trivet("run", "--rm", "--name", f"{name}-c", *options, busybox, "true")
        assert done.returncode == 125
        assert says in done.stderr.decode()
        assert f"{name}-c" not in daemon.ok("ps", "-a", "--format", "name")


def test_the_network_of_one_and_the_processes_of_another(daemon: Daemon, busybox: str, name: str) -> None:
    """They have different users, so that nobody could be in both: it is refused in a sentence."""
    daemon.ok("run", "-d", "--name", f"{name}-x", busybox, "sleep", "600")
    options = ["--network", f"container:{name}", "--pid", f"container:{name}-x"]
    done = daemon.trivet("run", "--rm", *options, busybox, "true")
    assert done.returncode == 125
    assert "with other users" in done.stderr.decode()
    daemon.ok("rm", "-f", f"{name}-x")
    options = ["--network", f"container:{name}", "--pid", f"container:{name}"]
    assert daemon.ok("run", "--rm", *options, busybox, "echo", "both") == "both"


def test_another_s_shared_memory(daemon: Daemon, busybox: str) -> None:
    """What is shareable has /dev/shm and queues for those who join it, until the last of them ends."""
    word = f"memory-{os.urandom(3).hex()}"
    join = ["--ipc", f"container:{word}"]
    look = "cat /dev/shm/file; readlink /proc/self/ns/ipc; stat -c %u:%g:%a /dev/shm"
    daemon.ok("run", "-d", "--name", word, "--ipc", "shareable", "--shm-size", "1m", busybox, "sleep", "600")
    daemon.ok("exec", word, "sh", "-c", "echo seen >/dev/shm/file")
    assert daemon.ok("run", "--rm", *join, busybox, "sh", "-c", look) == daemon.ok("exec", word, "sh", "-c", look)
    seen, _, mode = daemon.ok("exec", word, "sh", "-c", look).split()
    assert (seen, mode) == ("seen", "0:0:1777")
    full = daemon.trivet("run", "--rm", *join, busybox, "dd", "if=/dev/zero", "of=/dev/shm/big", "bs=64k", "count=40")
    assert b"No space left" in full.stderr
    assert daemon.trivet("run", "--rm", *join, busybox, "sh", "-c", "cp /bin/busybox /dev/shm/x; /dev/shm/x").returncode
    daemon.ok("rename", word, f"{word}-x")
    daemon.ok("run", "-d", "--name", f"{word}-b", "--ipc", f"container:{word}-x", busybox, "sleep", "600")
    daemon.ok("restart", "-t", "0", f"{word}-x")
    assert daemon.trivet("exec", f"{word}-x", "ls", "/dev/shm/file").returncode
    assert daemon.ok("exec", f"{word}-b", "cat", "/dev/shm/file") == "seen"
    daemon.ok("restart", "-t", "0", f"{word}-b")
    assert daemon.trivet("exec", f"{word}-b", "ls", "/dev/shm/file").returncode
    daemon.ok("rm", "-f", f"{word}-b", f"{word}-x")
    assert str(daemon.run) + "/i/" not in Path("/proc/self/mountinfo").read_text().replace("/user", "")


def test_memory_that_is_not_for_others(daemon: Daemon, busybox: str, name: str) -> None:
    """What isn't shareable can't be joined, and says so; with none there is no shared memory at all."""
    done = daemon.trivet("run", "--rm", "--ipc", f"container:{name}", busybox, "true")
    assert done.returncode == 125
    assert "it is not shareable" in done.stderr.decode()
    assert "--ipc shareable" in done.stderr.decode()
    assert daemon.trivet("run", "--rm", "--ipc", "none", busybox, "ls", "-d", "/dev/shm").returncode == 1
    assert daemon.ok("run", "--rm", "--ipc", "none", busybox, "readlink", "/proc/self/ns/ipc") != str(
        Path("/proc/self/ns/ipc").readlink()
    )
    here = str(Path("/proc/self/ns/ipc").readlink())
    daemon.ok("run", "-d", "--name", f"{name}-h", "--ipc", "host", busybox, "sleep", "600")
    joined = daemon.ok("run", "--rm", "--ipc", f"container:{name}-h", busybox, "readlink", "/proc/self/ns/ipc")
    daemon.ok("rm", "-f", f"{name}-h")
    assert joined == here


def test_the_memory_of_one_and_the_processes_of_another(daemon: Daemon, busybox: str, name: str) -> None:
    """Both can be of one instance, but not of two with different users."""
    daemon.ok("run", "-d", "--name", f"{name}-m", "--ipc", "shareable", busybox, "sleep", "600")
    one, other = f"container:{name}-m", f"container:{name}"
    assert daemon.ok("run", "--rm", "--ipc", one, "--pid", one, "--network", one, busybox, "echo", "all") == "all"
    done = daemon.trivet("run", "--rm", "--ipc", one, "--pid", other, busybox, "true")
    assert "with other users" in done.stderr.decode()
    daemon.ok("rm", "-f", f"{name}-m")
