"""A snapshot of a database that is being written to, restored, and asked by the database's own tools."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.api.test_service import image
from tests.conftest import Daemon

SUMS = """select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),
    (select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history)"""
COUNT = "select count(*) from pgbench_history"
PATIENCE = 180.0


@pytest.mark.needs("root", "mmdebstrap")
@pytest.mark.timeout(900)
def test_a_database_in_use(daemon: Daemon) -> None:
    """Its clone recovers, its sums agree, its own tools find nothing wrong; a rollback leads to the same point."""
    image(daemon)
    _start(daemon, "bank", "bank")
    daemon.ok("exec", "bank", "pgbench", "-q", "-i", "-s", "2", timeout=120)
    daemon.ok("exec", "-d", "bank", "pgbench", "-c", "4", "-T", "600")
    _until(lambda: int(_ask(daemon, "bank", COUNT)) > 200)
    daemon.ok("volume", "snapshot", "-q", "bank@one", timeout=120)
    after = int(_ask(daemon, "bank", COUNT))
    _until(lambda: int(_ask(daemon, "bank", COUNT)) > after)  # they go on
    daemon.ok("volume", "clone", "-q", "bank@one", "bank-copy", timeout=120)
    _start(daemon, "copy", "bank-copy")
    told = int(_ask(daemon, "copy", COUNT))
    assert 200 < told <= after
    assert len(set(_ask(daemon, "copy", SUMS).split("|"))) == 1
    daemon.ok("exec", "copy", "pg_amcheck", "--install-missing", "--heapallindexed", "-d", "postgres", timeout=120)
    assert "COPY public.pgbench_history" in daemon.ok("exec", "copy", "pg_dump", timeout=120)
    for name in ("copy", "bank"):
        daemon.ok("stop", "-t", "60", name, timeout=120)
    daemon.ok("volume", "rollback", "-q", "bank@one", timeout=120)
    daemon.ok("start", "bank", timeout=120)
    _until(lambda: _ask(daemon, "bank", COUNT) == str(told))
    daemon.ok("rm", "-f", "bank", "copy")
    daemon.ok("volume", "rm", "bank@one")
    daemon.ok("volume", "rm", "bank", "bank-copy")


def _start(daemon: Daemon, name: str, volume: str) -> None:
    daemon.ok("run", "-d", "--name", name, "-m", "512m", "-v", f"{volume}:/var/lib/guestbook", "guestbook:test")
    _until(lambda: daemon.trivet("exec", name, "psql", "-Atc", "select 1").stdout == b"1\n")


def _ask(daemon: Daemon, name: str, question: str) -> str:
    return daemon.trivet("exec", name, "psql", "-Atc", question).stdout.decode().strip() or "0"


def _until(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.2)
