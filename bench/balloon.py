"""`python -m bench.balloon`: how fast idle memory of a guest comes back, by the engine's way and by raw QMP, in turns.

A forked machine of 640 MiB writes 400 MiB and frees them; then it is told to do with 256, which is more than it needs:
closer to that the balloon gives way by itself, and either way stops short. The time is from the command to the guest
having no more than that, the processor's time that of QEMU meanwhile, the emulated guest's included: on a machine with
other work it is what can be compared. The engine's way also tells the guest what its program may use before it waits.
"""

from __future__ import annotations

import argparse
import os
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

SIZE, WRITTEN, LEFT = 640, 400, 256
STEP = 0.02
PATIENCE = 300
GOAL = 500


class Figure(NamedTuple):
    """What one round took: seconds, those of processors, MiB that the guest gave."""

    seconds: float
    processor: float
    given: float


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
            seconds, busy, given = figures[name][-1]
            print(
                f"round {number // 2 + 1}, {name}: {given:.0f} MiB in {seconds:.2f} s, {busy:.2f} of a processor",
                flush=True,
            )
    print(f"{'':8} {'MiB':>6} {'seconds':>8} {'CPU s':>6} {'MiB/s':>6} {'MiB per CPU s':>14}")
    for name, found in figures.items():
        given, seconds = found[0].given, median(each.seconds for each in found)
        busy = median(each.processor for each in found)
        print(f"{name:8} {given:6.0f} {seconds:8.2f} {busy:6.2f} {given / seconds:6.0f} {given / busy:14.0f}")
    print(f"goal: {GOAL} MB/s, or what raw QMP reaches")


def measure(host: World, plan: Plan, take: Callable[[], None]) -> Figure:
    """Let the guest write and free, then take it and give it back."""
    pid = VmDriver().status(plan).pid
    host.want("guest", WRITTEN)
    until(lambda: host.used("guest") >= WRITTEN, "the guest does not write", PATIENCE)
    host.want("guest", 10)
    until(lambda: host.used("guest") < WRITTEN / 2, "the guest does not free", PATIENCE)
    with host.standing_still():  # or it would give it back at once, as nobody else wants it
        size, begin, busy = _size(plan), time.monotonic(), _processor(pid)
        take()
        until(lambda: _size(plan) <= LEFT * MEBIBYTE, "the guest does not give it", PATIENCE, STEP)
        seconds, busy = time.monotonic() - begin, _processor(pid) - busy
        VmDriver().allot(plan, SIZE * MEBIBYTE)
        until(lambda: _size(plan) == SIZE * MEBIBYTE, "the guest does not take it back", PATIENCE)
    return Figure(seconds, busy, size / MEBIBYTE - LEFT)


def _ours(plan: Plan) -> None:
    VmDriver().allot(plan, LEFT * MEBIBYTE)


def _raw(plan: Plan, size: int) -> None:
    with Qmp(Path(plan.directory, machine.QMP), PATIENCE) as qmp:
        qmp.execute("balloon", value=size * MEBIBYTE)


def _size(plan: Plan) -> int:
    with Qmp(Path(plan.directory, machine.QMP), PATIENCE) as qmp:
        return int(qmp.execute("query-balloon")["actual"])


def _processor(pid: int) -> float:
    fields = Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _plan(host: World) -> Plan:
    """Plan as the engine did, for the directory in which the guest runs."""
    guest = host.client.instances.get("guest")
    imagined = host.client.instances.create(guest.request, dry_run=True).plan
    directory = str(host.root.parent / "i" / guest.id[:20])
    return msgspec.structs.replace(msgspec.convert(imagined, Plan), directory=directory)


if __name__ == "__main__":
    main()
