"""How a guest is, seen by whoever looks from outside."""

from __future__ import annotations

import json
import os
import socket

import pytest
from tests.conftest import Daemon

from trivet.isolation import vitals

pytestmark = pytest.mark.vm


def test_a_machine_tells_how_it_is(daemon: Daemon, busybox: str) -> None:
    """Memory that a program takes, and files that it writes, show in the guest's own view, on both doors."""
    name = f"vital-{os.urandom(3).hex()}"

    def seen() -> dict[str, object]:
        return dict(json.loads(daemon.ok("stats", "--no-stream", "--json", name))["inside"])

    try:
        daemon.ok(
            "run", "-d", "--isolation", "vm", "--name", name, "--tmpfs", "/scratch:size=128m", busybox, "sleep", "600"
        )
        before = seen()
        daemon.ok(
            "exec", name, "sh", "-c", "head -c 90000000 /dev/zero > /scratch/x; head -c 20000000 /dev/urandom > /y"
        )
        after = seen()
        memory = {when: view["memory"] for when, view in (("before", before), ("after", after))}
        assert memory["before"] == memory["after"]
        assert int(str(before["available"])) - int(str(after["available"])) > 80_000_000
        used = [{each["path"]: each["used"] for each in view["systems"]} for view in (before, after)]  # type: ignore[attr-defined]
        assert used[1]["/"] - used[0]["/"] > 15_000_000
        assert used[1]["/scratch"] == 90_001_408  # whole pages
        assert [each["kind"] for each in after["pressure"]] == ["cpu", "memory", "io"]  # type: ignore[attr-defined]
        table = daemon.ok("stats", "--no-stream", name)
        assert "INSIDE" in table.splitlines()[0]
        assert " MiB of 4" in table.splitlines()[1]
        assert docker(daemon, name)["guest_total"] == after["memory"]
    finally:
        daemon.ok("rm", "-f", name)


def docker(daemon: Daemon, name: str) -> dict[str, int]:
    """Ask Docker's API for the memory's details."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.run / "docker.sock"))
        path = f"/containers/{name}/stats?stream=0&one-shot=1"
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2])["memory_stats"]["stats"])


def test_what_a_hostile_guest_says_is_bounded() -> None:
    """Numbers that are none, percentages beyond a hundred and endless lists are left out."""
    said = "pids -1\nmemory 5 x\npressure cpu nan 1\npressure io 1 101\npressure cpu 1.5 0.5\n" + "system 2 1 /\n" * 99
    inside, processes = vitals.parse(said + "memory\n\nsystem 1\n")
    assert (processes, inside.memory) == (0, 0)
    assert [(each.kind, each.some, each.full) for each in inside.pressure] == [("cpu", 1.5, 0.5)]
    assert len(inside.systems) == 32
