"""commit, diff, export, update and history through the command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Daemon


@pytest.fixture
def name(daemon: Daemon, busybox: str) -> Iterator[str]:
    """A running instance that has changed something."""
    word = f"outcome-{os.urandom(3).hex()}"
    daemon.ok(
        "run", "-d", "--name", word, "-m", "64m", busybox, "sh", "-c", "echo new >/made; rm /etc/group; sleep 600"
    )
    daemon.ok("exec", word, "sh", "-c", "while [ ! -e /made ]; do :; done")
    yield word
    daemon.trivet("rm", "-f", word)
    daemon.trivet("rmi", "-f", f"{word}:1")


def test_diff_commit_history(daemon: Daemon, name: str) -> None:
    """What an instance changed is listed, becomes an image with its own defaults, and stands in the history."""
    lines = daemon.ok("diff", name).splitlines()
    assert {"A /made", "D /etc/group", "C /etc"} <= set(lines)
    made = daemon.ok("commit", "-m", "mended", "-c", 'CMD ["cat", "/made"]', name, f"{name}:1")
    assert made.startswith("sha256:")
    assert daemon.ok("run", "--rm", f"{name}:1") == "new"
    assert "mended" in daemon.ok("history", f"{name}:1").splitlines()[1]
    assert daemon.client.instances.get(name).status == "running"


def test_export(daemon: Daemon, name: str, tmp_path: Path) -> None:
    """The whole root goes out as a tar, which becomes an image again."""
    daemon.ok("export", "-o", tmp_path / "root.tar", name)
    listed = subprocess.run(["tar", "-tf", tmp_path / "root.tar"], capture_output=True, text=True, check=True).stdout
    assert {"made", "bin/sh"} <= set(listed.split())
    assert "etc/group" not in listed.split()
    daemon.ok("import", "-q", tmp_path / "root.tar", f"{name}:1")
    assert daemon.ok("run", "--rm", f"{name}:1", "cat", "/made") == "new"


def test_update(daemon: Daemon, name: str) -> None:
    """Limits change while it runs, what wasn't named stays; without a change it says so."""
    daemon.ok("update", "--cpus", "0.5", "--restart", "on-failure:3", name)
    request = daemon.client.instances.get(name).request
    assert (request.memory, request.cpus, request.restart.name, request.restart.maximum) == (
        64 << 20,
        0.5,
        "on-failure",
        3,
    )
    daemon.ok("update", "-m", "128m", name)
    assert next(daemon.client.instances.stats(name)).memory_limit == 128 << 20
    done = daemon.trivet("update", name)
    assert done.returncode == 2
    assert b"nothing to change was named" in done.stderr


@pytest.mark.vm
def test_what_a_machine_cannot(daemon: Daemon, busybox: str, name: str) -> None:
    """A machine's root is a drive: it is told, not half done."""
    daemon.ok("create", "--name", f"{name}-vm", "--isolation", "vm", busybox, "true")
    for words in (("diff",), ("commit",), ("export", "-o", "/dev/null")):
        done = daemon.trivet(*words, f"{name}-vm")
        assert done.returncode == 1
        assert done.stderr.decode().count("trivet: ") == 1
    daemon.ok("rm", f"{name}-vm")
