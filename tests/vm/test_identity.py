"""What tells machines apart: of any number of forks, ten of them alive at a time, no two have anything in common."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon

from trivet.client.schema import InstanceRequest
from trivet.client.stream import Output
from trivet.hypervisor.qmp import Qmp

pytestmark = pytest.mark.vm

FORKS = int(os.environ.get("TRIVET_FORKS", "10"))  # `make identity`: a thousand
ALIVE = 10
IMAGE = "busybox:test"
MOMENTS = 30.0
"""Seconds of difference that reading a clock through a busy host may make."""
SCRIPT = """
cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid /etc/machine-id
head -c 16 /dev/urandom | md5sum
hostname; cat /sys/class/net/eth0/address; ip -4 -o addr show eth0 | awk '{print $4}'; date +%s; echo done; sleep 600
"""


class Identity(msgspec.Struct, frozen=True):
    """What one machine says of itself; the generation id is QEMU's word."""

    boot: str
    uuid: str
    installation: str
    random: str
    hostname: str
    mac: str
    address: str
    generation: str
    skew: float


EVER = ("boot", "uuid", "installation", "random", "hostname", "generation")
"""What no other machine ever has; addresses are given to others when one has gone."""
NOW = ("mac", "address")


@pytest.fixture
def engine(tmp_path: Path, short_path: Path) -> Iterator[Daemon]:
    """An engine that keeps a machine ready, so that forks and spares are both met."""
    made = Daemon(tmp_path / "root", short_path, "--spares=1")
    made.start()
    try:
        made.ok("import", "-q", "-", IMAGE, input=busybox_tar())
        yield made
    finally:
        made.clean()


def looked_at(engine: Daemon, number: int) -> Identity:
    """Start a machine and ask it who it is; it runs on."""
    client = engine.client
    made = client.instances.create(
        InstanceRequest(image=IMAGE, isolation="vm", name=f"fork-{number}", command=["sh", "-c", SCRIPT])
    )
    said = b""
    with client.instances.attach(made.id, start=True) as stream:
        for event in stream:
            said += event.data if isinstance(event, Output) else b""
            if said.endswith(b"done\n"):
                break
    heard = time.time()
    words = said.decode().split("\n")
    assert client.instances.get(made.id).origin == "forked"
    with Qmp(engine.run / "i" / made.id[:20] / "qmp.sock") as qmp:
        generation = str(qmp.execute("query-vm-generation-id")["guid"])
    return Identity(
        boot=words[0],
        uuid=words[1],
        installation=words[2],
        random=words[3].split()[0],
        hostname=words[4],
        mac=words[5],
        address=words[6],
        generation=generation,
        skew=heard - int(words[7]),
    )


@pytest.mark.timeout(300 + 15 * FORKS)
def test_no_two_forks_are_the_same(engine: Daemon) -> None:
    """MAC, address, name, machine and boot id, random bytes, generation id are one machine's only; clocks are right."""
    found: list[Identity] = []
    for first in range(0, FORKS, ALIVE):
        numbers = range(first, min(first + ALIVE, FORKS))
        with ThreadPoolExecutor(2) as pool:
            alive = list(pool.map(lambda number: looked_at(engine, number), numbers))
        for field in NOW:
            assert Counter(getattr(each, field) for each in alive).most_common(1)[0][1] == 1, field
        for number in numbers:
            engine.client.instances.remove(f"fork-{number}", force=True)
        found += alive
        for field in EVER:
            word, count = Counter(getattr(each, field) for each in found).most_common(1)[0]
            assert count == 1, f"{count} machines have {field} {word}"
        assert max(abs(each.skew) for each in found) < MOMENTS
        if FORKS > ALIVE:
            print(
                f"{len(found)} of {FORKS} differ, clocks within {max(abs(each.skew) for each in found):.1f} s",
                flush=True,
            )
