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
