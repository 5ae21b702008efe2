"""Machines through the command: forked from a template, and what is told when one ends badly."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from tests.conftest import Daemon

pytestmark = pytest.mark.vm


def test_a_machine_is_forked_and_its_end_explained(daemon: Daemon, busybox: str) -> None:
    """ps says that it was forked; one that is killed says so, leaves its neighbour alone and starts again."""
    names = [f"machine-{os.urandom(3).hex()}" for _ in range(2)]
    try:
        for name in names:
            daemon.ok("run", "-d", "--isolation", "vm", "--name", name, busybox, "sleep", "600")
            assert daemon.client.instances.get(name).origin == "forked"
        assert all("forked)" in line for line in daemon.ok("ps").splitlines() if "machine-" in line)
        os.kill(daemon.client.instances.get(names[0]).pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while (found := daemon.client.instances.get(names[0])).status != "exited":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (found.exit_code, found.error) == (137, "the machine was killed")
        assert daemon.ok("exec", names[1], "echo", "here") == "here"
        daemon.ok("start", names[0])
        assert daemon.ok("exec", names[0], "echo", "again") == "again"
    finally:
        daemon.trivet("rm", "-f", *names)


def test_templates_take_space_and_can_be_removed(daemon: Daemon, busybox: str) -> None:
    """system df counts the templates, and system prune would remove them."""
    daemon.ok("run", "--rm", "--isolation", "vm", busybox, "true")
    deadline = time.monotonic() + 20
    rows: dict[str, int] = {}
    while not rows.get("templates"):
        assert time.monotonic() < deadline, "no template was written out"
        rows = {row["kind"]: row["size"] for row in map(json.loads, daemon.ok("system", "df", "--json").splitlines())}
    assert "template " in daemon.ok("system", "prune", "--dry-run", "-f")
