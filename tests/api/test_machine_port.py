"""Published ports of a machine change while it runs."""

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
