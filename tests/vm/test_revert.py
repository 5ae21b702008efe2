"""Going back: what a machine has in memory and on its disk is what it was at the snapshot, any number of times."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon

from trivet.client.schema import InstanceRequest

pytestmark = pytest.mark.vm

REVERTS = int(os.environ.get("TRIVET_REVERTS", "3"))  # `make reverts`: a hundred
IMAGE, NAME = "busybox:test", "ledger"
WRITE = "head -c 300000 /dev/urandom > /dev/shm/{0}; head -c 300000 /dev/urandom > /{0}"
SUMS = "cat /dev/shm/* | md5sum; cat /file* | md5sum; cat /proc/1/environ | md5sum; ls /dev/shm / | md5sum"


@pytest.fixture
def engine(tmp_path: Path, short_path: Path) -> Iterator[Daemon]:
    """An engine with one machine that has a program and files in memory and on disk."""
    made = Daemon(tmp_path / "root", short_path)
    made.start()
    try:
        made.ok("import", "-q", "-", IMAGE, input=busybox_tar())
        run = InstanceRequest(image=IMAGE, isolation="vm", name=NAME, command=["sh", "-c", "while :; do sleep 1; done"])
        client = made.client
        client.instances.start(client.instances.create(run).id)
        yield made
    finally:
        made.clean()


def inside(engine: Daemon, script: str) -> str:
    """Run a script in the machine; what it says."""
    return engine.ok("exec", NAME, "sh", "-c", script)


@pytest.mark.timeout(300 + 30 * REVERTS)
def test_memory_and_disk_are_those_of_the_snapshot(engine: Daemon) -> None:
    """Checksums of what is in memory and on disk are the snapshot's after a revert, whatever was written since."""
    pauses: list[float] = []
    for number in range(REVERTS):
        inside(engine, WRITE.format(f"file{number % 5}"))
        before = inside(engine, SUMS)
        pauses.append(engine.client.checkpoints.take(NAME, f"s{number}").pause)
        inside(engine, f"{WRITE.format(f'file{number % 5}')}; {WRITE.format('file-later')}; rm -f /file0; sync")
        assert inside(engine, SUMS) != before
        engine.client.checkpoints.revert(NAME, f"s{number}")
        assert inside(engine, SUMS) == before, f"revert {number + 1}"
        if number:
            engine.client.checkpoints.remove(NAME, f"s{number - 1}")
        if REVERTS > 3 and number % 10 == 9:
            worst = statistics.quantiles(pauses, n=20)[-1] * 1000
            print(f"{number + 1} of {REVERTS} are right; stood still for {statistics.median(pauses) * 1000:.0f} ms,"
                  f" 95 % {worst:.0f} ms", flush=True)  # fmt: skip
    assert engine.client.instances.get(NAME).status == "running"
