"""The commands that send images to registries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.image.conftest import debian_registry

pytestmark = pytest.mark.needs("docker-registry")


def test_push_prints_the_digest(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """`push` shows each layer on standard error and prints the digest; pulling it back gives the same."""
    with debian_registry(tmp_path) as registry:
        name = f"{registry}/team/busybox:1"
        daemon.ok("tag", busybox, name)
        done = daemon.trivet("push", name)
        assert done.returncode == 0, done.stderr
        assert b"uploaded" in done.stderr
        digest = done.stdout.decode().strip()
        daemon.ok("rmi", name)
        assert json.loads(daemon.ok("pull", "-q", "--json", name))["digest"] == digest
        assert json.loads(daemon.ok("push", "--json", "-q", name)) == {"name": name, "digest": digest}
        daemon.ok("rmi", name)


def test_push_of_nothing(daemon: Daemon) -> None:
    """A name no image has, and a registry nobody answers at: one sentence and the next step."""
    done = daemon.trivet("push", "localhost:1/none:1")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [
        "trivet: no such image: localhost:1/none:1",
        "hint: give it the name to push first: trivet tag IMAGE localhost:1/none:1",
    ]


def test_login_needs_a_password(daemon: Daemon) -> None:
    """Without a terminal the password comes from standard input, and an empty one is refused."""
    done = daemon.trivet("login", "-u", "me", "localhost:1")
    assert (done.returncode, b"--password-stdin" in done.stderr) == (2, True)
    done = daemon.trivet("login", "-u", "me", "--password-stdin", "localhost:1", input=b"\n")
    assert (done.returncode, b"holds no password" in done.stderr) == (2, True)
    done = daemon.trivet("login", "-u", "me", "--password-stdin", "localhost:1", input=b"x\n")
    assert (done.returncode, b"registry localhost:1 does not answer: connection refused" in done.stderr) == (1, True)
