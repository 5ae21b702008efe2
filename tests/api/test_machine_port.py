"""Networks of machines: ports that change while they run, and what a guest's own kernel sends."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request

import pytest
from tests.conftest import Daemon

pytestmark = pytest.mark.vm


def _answers(port: int) -> bool:
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def test_ports_of_a_machine(daemon: Daemon, busybox: str) -> None:
    """A machine's port is moved to another number while it runs."""
    name = f"port-{os.urandom(3).hex()}"
    try:
        command = ("httpd", "-f", "-p", "80", "-h", "/etc")
        daemon.ok("run", "-d", "--isolation", "vm", "--name", name, busybox, *command)
        daemon.ok("update", "--publish-add", "127.0.0.1:8196:80", name)
        assert _answers(8196)
        daemon.ok("update", "--publish-rm", "80", "--publish-add", "127.0.0.1:8197:80", name)
        assert _answers(8197)
        assert daemon.ok("port", name) == "80/tcp -> 127.0.0.1:8197"
    finally:
        daemon.trivet("rm", "-f", name)


def test_a_guest_is_nobody_else(daemon: Daemon, busybox: str) -> None:
    """A guest with all rights over its own kernel neither takes another address nor says it is its gateway."""
    name = f"spoof-{os.urandom(3).hex()}"
    try:
        daemon.ok("run", "-d", "--isolation", "vm", "--cap-add", "ALL", "--name", name, busybox, "sleep", "600")
        (use,) = daemon.client.instances.get(name).networks
        gateway, other = use.gateway, f"{use.gateway.rpartition('.')[0]}.250"

        def ping(source: str) -> int:
            words = ("exec", "--privileged", name, "ping", "-c", "1", "-W", "1", "-I", source, gateway)
            return daemon.trivet(*words).returncode

        def ask(source: str) -> str:
            words = ("exec", "--privileged", name, "arping", "-c", "1", "-w", "1", "-I", "eth0", "-s", source, gateway)
            return daemon.trivet(*words).stdout.decode()

        own = use.addresses[0].partition("/")[0]
        daemon.ok("exec", "--privileged", name, "ip", "addr", "add", f"{other}/32", "dev", "eth0")
        assert (ping(own), ping(other)) == (0, 1)
        assert "Received 1 r" in ask(own)
        assert "Received 0 r" in ask(other)
    finally:
        daemon.trivet("rm", "-f", name)
