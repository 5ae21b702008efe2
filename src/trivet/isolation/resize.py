"""Changing what a running machine may use.

plan.directory/shape        how much memory its guest was started with, and how many processors
plan.directory/processors   how many it uses now, if that was changed

Memory comes in modules that are plugged in and taken out, and is taken by the balloon between them; the program's own
limit lies within that. Processors are plugged in, and the guest stops using what it shall not.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Protocol

import msgspec

from trivet.base.error import Conflict, TrivetError
from trivet.hypervisor import plugging
from trivet.hypervisor.machine import MEBIBYTE, Machine
from trivet.hypervisor.qmp import Qmp
from trivet.isolation import change, elastic, guest, machine
from trivet.isolation.plan import Plan, Program
from trivet.kernel import procfs
from trivet.kernel.cgroup import Group
from trivet.kernel.cgroup_record import Resources
from trivet.launch.operation import Builtin, Operation, Spawn, Wait, WriteFile

SHAPE, PROCESSORS = "shape", "processors"
_ONLINE = "/sys/devices/system/cpu/cpu{}/online"
_PATIENCE, _STEP = 20.0, 0.05


class Shape(msgspec.Struct, frozen=True):
    """What a guest was started with: bytes, processors, slots."""

    memory: int
    cpus: int
    slots: int = 1


class TooMuch(Conflict):
    """More than a machine can be given without being started anew."""

    def __init__(self, plan: Plan, what: str) -> None:
        super().__init__(f"cannot give running instance {plan.name} {what}", hint=f"trivet stop {plan.name} first")


class Driver(Protocol):
    """What this asks of a machine: how much memory it uses, and to carry something out inside."""

    def used(self) -> int:
        """Measure, in bytes."""

    def inside(self, steps: list[Operation]) -> object:
        """Have the agent do it. Raises a `TrivetError` when it can't."""


def note(plan: Plan, made: Machine) -> None:
    """Write down what a machine is started with."""
    Path(plan.directory, SHAPE).write_text(f"{made.memory} {made.cpus} {made.slots.count if made.slots else 0}")


def noted(plan: Plan) -> Shape:
    """Tell what the running machine was started with."""
    try:
        return parse(Path(plan.directory, SHAPE).read_text())
    except FileNotFoundError:
        problem = f"an older trivet has started instance {plan.name}, and not said with how much"
        raise Conflict(problem, hint=f"trivet restart {plan.name}") from None


def parse(text: str) -> Shape:
    """Read `BYTES PROCESSORS SLOTS`; an older trivet doesn't tell the last, which was one."""
    return Shape(*map(int, text.split()))


def fitted(plan: Plan, shape: Shape) -> Plan:
    """Plan for a machine of this shape, whatever the limits have become."""
    limits = msgspec.structs.replace(plan.limits, memory=shape.memory, cpus=float(shape.cpus))
    return msgspec.structs.replace(plan, limits=limits)


def apply(plan: Plan, driver: Driver, group: Group) -> None:
    """Give a running machine the plan's limits. Raises `TooMuch`, `InUse`.

    What is more than it has is plugged in, what is less is taken by the balloon and then, by modules that the guest
    can do without, for good.
    """
    shape, socket, wanted = noted(plan), Path(plan.directory, machine.QMP), machine.memory(plan)
    with Qmp(socket, elastic.PATIENCE) as qmp:
        has = plugging.stock(qmp)
    size, _ = elastic.inside(socket)
    if wanted < size and driver.used() > wanted:
        raise elastic.InUse(plan, wanted)
    processors = math.ceil(plan.limits.cpus) or shape.cpus
    check(plan, shape, has, processors)
    more = wanted - shape.memory - has.memory
    if more > 0:
        group.apply(resources(plan, shape, has.memory + more + plugging.BLOCK))
        with Qmp(socket, elastic.PATIENCE) as qmp:
            plugging.add_memory(qmp, more)
    if wanted > size:
        elastic.leave(socket, wanted)
    _use(plan, shape, has, processors, driver)
    driver.inside(inside(plan))
    with Qmp(socket, plugging.SLOTS * _PATIENCE) as qmp:
        _take(qmp, shape, wanted)
        left = plugging.stock(qmp).memory
    elastic.leave(socket, wanted)  # what is more than modules can be is the balloon's
    group.apply(resources(plan, shape, left))


def check(plan: Plan, shape: Shape, has: plugging.Stock, processors: int) -> None:
    """Refuse what takes another machine. Raises `TooMuch`."""
    most, more = procfs.memory()[0] >> 30 << 30, machine.memory(plan) - shape.memory - has.memory
    if machine.memory(plan) > max(most, shape.memory):
        raise TooMuch(plan, f"more than {max(most, shape.memory) // MEBIBYTE} MiB of memory")
    if more > 0 and len(has.modules) == plugging.SLOTS:
        raise TooMuch(plan, f"more memory: it has been given some {plugging.SLOTS} times")
    if processors > has.most:
        raise TooMuch(plan, f"more than {has.most} processor{'s' if has.most > 1 else ''}")


def untouched(plan: Plan, shape: Shape) -> bool:
    """Tell whether a machine has what it was started with, and nothing more."""
    with Qmp(Path(plan.directory, machine.QMP), elastic.PATIENCE) as qmp:
        has = plugging.stock(qmp)
    return not has.modules and has.processors == shape.cpus


def _use(plan: Plan, shape: Shape, has: plugging.Stock, processors: int, driver: Driver) -> None:
    """Have the guest use as many processors as planned; one that has just been plugged in takes it a moment to see."""
    note = Path(plan.directory, PROCESSORS)
    if processors == (int(note.read_text()) if note.exists() else shape.cpus):
        return
    if processors > has.processors:
        with Qmp(Path(plan.directory, machine.QMP), elastic.PATIENCE) as qmp:
            plugging.add_processors(qmp, processors - has.processors)
    words = {number: b"1" if number < processors else b"0" for number in range(1, max(processors, has.processors))}
    writes: list[Operation] = [WriteFile(_ONLINE.format(number), word) for number, word in words.items()]
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            driver.inside([*writes, Spawn(), Wait(), Builtin("nothing", ("/",))])
            break
        except TrivetError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_STEP)
    note.write_text(str(processors))


def _take(qmp: Qmp, shape: Shape, wanted: int) -> None:
    """Take out what is too much; what the guest can't do without stays, and the balloon keeps it from using it.

    What the balloon has of a module has to be the guest's before it can give the module away.
    """
    for module in plugging.modules(qmp):
        whole = shape.memory + sum(each.size for each in plugging.modules(qmp))
        if whole - module.size >= wanted:
            qmp.balloon(min(wanted + module.size, whole))
            plugging.take_memory(qmp, module, _PATIENCE)


def resources(plan: Plan, shape: Shape, plugged: int) -> Resources:
    """Limit QEMU: its time as planned, its memory as much as it has; the balloon decides how much of that is used."""
    memory = (machine.resources(fitted(plan, shape)).memory or 0) + plugged
    wanted = msgspec.structs.replace(machine.resources(plan), memory=memory, swap=memory)
    if wanted.quota is None:  # lifted
        wanted = msgspec.structs.replace(wanted, quota=-1, period=100_000)
    return wanted if wanted.shares else msgspec.structs.replace(wanted, shares=1024)


def inside(plan: Plan) -> list[Operation]:
    """Compute what the agent does: the program's group gets its limits, whatever it is at."""
    limits = plan.limits
    words = {
        "memory.max": str(limits.memory or "max"),
        "memory.low": str(limits.memory_reservation),
        "pids.max": str(limits.pids or "max"),
    }
    steps: list[Operation] = [WriteFile(f"{guest.GROUP}/{name}", word.encode()) for name, word in words.items()]
    return [*steps, *map(change.free, guest.enter(plan, Program(argv=("/",), builtin="nothing")))]
