"""Instances that change their isolation level."""

from __future__ import annotations

import os
import re
import time

import pytest
from tests.conftest import Daemon

pytestmark = pytest.mark.vm

LOOK = (
    "ls -A /kept /etc/gone /etc/new /usr/lib/whole; cat /kept/file /etc/new;"
    " stat -c '%u %g %a' /kept/file; ls -la /kept/link"
)
CHANGE = (
    "rm -r /usr/lib/whole; mkdir /usr/lib/whole; echo only > /usr/lib/whole/one;"
    "mkdir -p /etc/old /kept; echo x > /kept/file; chown 7:8 /kept/file; chmod 640 /kept/file; ln -s file /kept/link;"
    "rm -r /usr/lib/left; echo new > /etc/new"
)


def test_an_instance_keeps_what_it_has_at_another_level(daemon: Daemon, busybox: str) -> None:
    """Files, deletions, owners, address, port and log are what they were, at vm and back at container."""
    name, image = f"wandering-{os.urandom(3).hex()}", f"left-{os.urandom(3).hex()}:1"
    daemon.ok(
        "run",
        "--name",
        name,
        busybox,
        "sh",
        "-c",
        "mkdir -p /usr/lib/left /usr/lib/whole; echo a | tee /usr/lib/left/a > /usr/lib/whole/a; echo b > /b",
    )
    daemon.ok("commit", name, image)
    daemon.ok("rm", name)
    try:
        program = "n=$(cat /count 2>/dev/null); n=$((n+1)); echo $n > /count; echo begun $n; exec sleep 600"
        daemon.ok("run", "-d", "--name", name, "-p", "80", image, "sh", "-c", program)
        daemon.ok("exec", name, "sh", "-c", f"{CHANGE}; rm /b; sync")
        before = daemon.client.instances.get(name)
        look = daemon.trivet("exec", name, "sh", "-c", LOOK).stdout
        for number, level in enumerate(("vm", "container", "process"), start=2):
            if level == "process":
                refused = daemon.trivet("relevel", name, "--isolation", level)
                assert b"it uses the host's own network" in refused.stderr
                break
            said = daemon.ok("relevel", name, "--isolation", level)
            assert re.fullmatch(rf"{name}: \w+ → {level}, it did not run for \d+\.\d s", said)
            after = daemon.client.instances.get(name)
            assert (after.id, after.isolation, after.status) == (before.id, level, "running")
            assert after.networks[0].addresses == before.networks[0].addresses
            assert after.networks[0].mac == before.networks[0].mac
            assert [port.container_port for port in after.ports] == [80]
            assert daemon.trivet("exec", name, "sh", "-c", LOOK).stdout == look
            assert daemon.trivet("exec", name, "ls", "/usr/lib/left", "/b").returncode
            assert daemon.ok("logs", name).splitlines() == [f"begun {n}" for n in range(1, number + 1)]
        assert daemon.ok("exec", name, "cat", "/count") == "3"
    finally:
        daemon.trivet("rm", "-f", name)
        daemon.trivet("rmi", image)


def test_a_process_becomes_a_machine_and_a_process_again(daemon: Daemon, busybox: str) -> None:
    """What it has written, deleted and counted is there, and its log goes on."""
    name = f"plain-{os.urandom(3).hex()}"
    program = "n=$(cat /count 2>/dev/null); n=$((n+1)); echo $n > /count; echo begun $n; exec sleep 600"
    try:
        daemon.ok("run", "-d", "--isolation", "process", "--name", name, busybox, "sh", "-c", program)
        daemon.ok("exec", name, "sh", "-c", "mkdir -p /kept; echo x > /kept/file; chmod 640 /kept/file; sync")
        for level in ("vm", "process"):
            daemon.ok("relevel", name, "--isolation", level)
            assert daemon.client.instances.get(name).isolation == level
            assert daemon.ok("exec", name, "sh", "-c", "cat /kept/file; stat -c %a /kept/file") == "x\n640"
        assert daemon.ok("logs", name).splitlines() == ["begun 1", "begun 2", "begun 3"]
    finally:
        daemon.trivet("rm", "-f", name)


def test_what_no_layer_can_tell_is_refused(daemon: Daemon, busybox: str) -> None:
    """A file with the name of a whiteout, which would hide another one, is named; the instance goes on where it was."""
    name = f"strange-{os.urandom(3).hex()}"
    try:
        daemon.ok("run", "-d", "--isolation", "vm", "--name", name, busybox, "sleep", "600")
        daemon.ok("exec", name, "sh", "-c", "echo odd > /etc/.wh.x; sync")
        assert (
            b"cannot tell ./etc/.wh.x in a layer" in daemon.trivet("relevel", name, "--isolation", "container").stderr
        )
        assert daemon.ok("exec", name, "cat", "/etc/.wh.x") == "odd"
        assert daemon.client.instances.get(name).isolation == "vm"
    finally:
        daemon.trivet("rm", "-f", name)


def test_a_change_of_level_that_fails_is_undone(daemon: Daemon, busybox: str) -> None:
    """What the new level can't do is told, and the instance goes on at its old one; so it does if the engine dies."""
    name = f"staying-{os.urandom(3).hex()}"
    try:
        daemon.ok("run", "-d", "--pid", "host", "--name", name, busybox, "sleep", "600")
        assert b"it has a kernel of its own" in daemon.trivet("relevel", name, "--isolation", "vm").stderr
        assert daemon.ok("exec", name, "echo", "here") == "here"
        daemon.ok("rm", "-f", name)
        daemon.ok("run", "-d", "--name", name, busybox, "sleep", "600")
        daemon.ok("exec", name, "sh", "-c", "echo kept > /kept")
        running = daemon.begin("relevel", name, "--isolation", "vm")
        time.sleep(1)
        daemon.kill()
        running.wait(20)
        daemon.start()
        deadline = time.monotonic() + 60
        while daemon.client.instances.get(name).status != "running":
            assert time.monotonic() < deadline, daemon.client.instances.get(name)
            time.sleep(0.1)
        assert daemon.ok("exec", name, "cat", "/kept") == "kept"
    finally:
        daemon.trivet("rm", "-f", name)
