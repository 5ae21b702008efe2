"""A real service: PostgreSQL from Debian's packages with an application in front, built from a Dockerfile."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from demo import visitor
from tests.conftest import Daemon

GUESTBOOK = Path(__file__).parents[2] / "demo" / "guestbook"
COUNT = "select count(*) from entry"
PATIENCE = 180.0


def image(daemon: Daemon) -> None:
    """Make the image, once in a session."""
    if daemon.trivet("inspect", "--type", "image", "guestbook:test").returncode:
        daemon.ok("pull", "-q", "bootstrap:debian/bookworm", timeout=600)
        daemon.ok("build", "-q", "-t", "guestbook:test", GUESTBOOK, timeout=600)


@pytest.mark.vm
@pytest.mark.needs("root", "mmdebstrap")
@pytest.mark.timeout(900)
def test_postgresql_at_every_level(daemon: Daemon) -> None:
    """One image, one line: entries made through the published port are in the database, and survive a restart."""
    image(daemon)
    for level in ("process", "container", "vm"):
        name = f"guestbook-{level}"
        line = ["run", "-d", "--name", name, "-p", "127.0.0.1::18080", "-m", "512m", "--isolation"]
        daemon.ok(*line, level, "guestbook:test", timeout=240)
        book = visitor.sign(_port(daemon, name))
        assert daemon.ok("exec", name, "psql", "-Atc", COUNT) == str(len(book)) == "3"
        assert daemon.ok("exec", name, "id", "-un") == "postgres"
        daemon.ok("restart", "-t", "60", name, timeout=240)
        kept = msgspec.json.decode(visitor.ask(_port(daemon, name), "GET", "/"), type=list[visitor.Entry])
        assert kept == book
        daemon.ok("stop", "-t", "60", name, timeout=120)
        assert daemon.client.instances.get(name).exit_code == 0  # PostgreSQL was asked to end, and did
        daemon.ok("rm", "-v", name)


def _port(daemon: Daemon, name: str) -> int:
    """Find the published port of an instance, and wait until the service answers there."""
    port = int(daemon.ok("port", name).rpartition(":")[2])
    visitor.wait_for_answer(port, PATIENCE, alive=lambda: None)
    return port
