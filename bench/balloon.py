"""`python -m bench.balloon`: how fast idle memory of a guest comes back, by the engine's way and by raw QMP, in turns.

A forked machine of 1 GiB writes 700 MiB and frees them; then it is told to do with 192. The time is from the command to
the guest having no more than that; what the host has got back is read from QEMU's resident memory. The engine's way
also tells the guest what its program may use before it waits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
from demo.overbooked.world import MEBIBYTE, World, until, world

from trivet.hypervisor.qmp import Qmp
from trivet.isolation import machine
from trivet.isolation.plan import Plan
from trivet.isolation.vm import VmDriver

SIZE, WRITTEN, LEFT = 1024, 700, 192
STEP = 0.01
GOAL = 500


class Figure(NamedTuple):
    """What one round took: seconds, MiB that the guest gave, MiB that the host got."""

    seconds: float
    given: float
    got: float


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    figures: dict[str, list[Figure]] = {"trivet": [], "raw QMP": []}
    with world(2 * SIZE, "--memory-ratio=0") as host:
        host.begin("guest", "vm", LEFT, SIZE, 1024)
        plan = _plan(host)
        ways: dict[str, Callable[[], None]] = {"trivet": lambda: _ours(plan), "raw QMP": lambda: _raw(plan, LEFT)}
        for number in range(2 * rounds):
            name = list(ways)[(number + number // 2) % 2]
            figures[name].append(measure(host, plan, ways[name]))
    print(f"{'':8} {'MiB/s':>6} {'seconds':>8} {'MiB':>6} {'host got':>9}")
    for name, found in figures.items():
        rate, seconds = median(each.given / each.seconds for each in found), median(each.seconds for each in found)
        print(f"{name:8} {rate:6.0f} {seconds:8.2f} {found[0].given:6.0f} {median(each.got for each in found):9.0f}")
    print(f"goal: {GOAL} MB/s, or what raw QMP reaches")


def measure(host: World, plan: Plan, take: Callable[[], None]) -> Figure:
    """Let the guest write and free, then take it and give it back."""
    pid = VmDriver().status(plan).pid
    host.want("guest", WRITTEN)
    until(lambda: host.used("guest") >= WRITTEN, "the guest does not write", 120)
    full = _resident(pid)
    host.want("guest", 10)
    until(lambda: host.used("guest") < WRITTEN / 2, "the guest does not free", 120)
    with host.standing_still():  # or it would give it back at once, as nobody else wants it
        size, begin = _size(plan), time.monotonic()
        take()
        until(lambda: _size(plan) <= LEFT * MEBIBYTE, "the guest does not give it", 120, STEP)
        seconds, got = time.monotonic() - begin, full - _resident(pid)
        VmDriver().allot(plan, SIZE * MEBIBYTE)
        until(lambda: _size(plan) == SIZE * MEBIBYTE, "the guest does not take it back", 120)
    return Figure(seconds, size / MEBIBYTE - LEFT, got)


def _ours(plan: Plan) -> None:
    VmDriver().allot(plan, LEFT * MEBIBYTE)


def _raw(plan: Plan, size: int) -> None:
    with Qmp(Path(plan.directory, machine.QMP)) as qmp:
        qmp.execute("balloon", value=size * MEBIBYTE)


def _size(plan: Plan) -> int:
    with Qmp(Path(plan.directory, machine.QMP)) as qmp:
        return int(qmp.execute("query-balloon")["actual"])


def _resident(pid: int) -> float:
    statm = Path("/proc", str(pid), "statm").read_text()
    return int(statm.split()[1]) * 4096 / MEBIBYTE


def _plan(host: World) -> Plan:
    """Plan as the engine did, for the directory in which the guest runs."""
    guest = host.client.instances.get("guest")
    imagined = host.client.instances.create(guest.request, dry_run=True).plan
    directory = str(host.root.parent / "i" / guest.id[:20])
    return msgspec.structs.replace(msgspec.convert(imagined, Plan), directory=directory)


if __name__ == "__main__":
    main()
