"""Changing what a running machine may use, within what it has had since it was started.

plan.directory/shape   how much memory its guest was started with, and how many processors

Memory is taken by the balloon, and the program's own limit lies within that; processors keep their number and get
another share of time.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from trivet.base.error import Conflict
from trivet.hypervisor.machine import MEBIBYTE, Machine
from trivet.isolation import change, guest, machine
from trivet.isolation.plan import Plan, Program
from trivet.kernel.cgroup_record import Resources
from trivet.launch.operation import Operation, WriteFile

SHAPE = "shape"


class Shape(msgspec.Struct, frozen=True):
    """What a guest was started with: bytes, processors."""

    memory: int
    cpus: int


class TooMuch(Conflict):
    """More than a machine can be given without being started anew."""

    def __init__(self, plan: Plan, what: str) -> None:
        super().__init__(
            f"cannot give running instance {plan.name} more than the {what} that its machine was started with",
            hint=f"trivet stop {plan.name} first",
        )


def note(plan: Plan, made: Machine) -> None:
    """Write down what a machine is started with."""
    Path(plan.directory, SHAPE).write_text(f"{made.memory} {made.cpus}")


def noted(plan: Plan) -> Shape:
    """Tell what the running machine was started with."""
    try:
        return parse(Path(plan.directory, SHAPE).read_text())
    except FileNotFoundError:
        problem = f"an older trivet has started instance {plan.name}, and not said with how much"
        raise Conflict(problem, hint=f"trivet restart {plan.name}") from None


def parse(text: str) -> Shape:
    """Read `BYTES PROCESSORS`."""
    memory, cpus = text.split()
    return Shape(int(memory), int(cpus))


def fitted(plan: Plan, shape: Shape) -> Plan:
    """Plan for a machine of this shape, whatever the limits have become."""
    limits = msgspec.structs.replace(plan.limits, memory=shape.memory, cpus=float(shape.cpus))
    return msgspec.structs.replace(plan, limits=limits)


def check(plan: Plan, shape: Shape) -> None:
    """Refuse what takes another machine. Raises `TooMuch`."""
    if machine.memory(plan) > shape.memory:
        raise TooMuch(plan, f"{shape.memory // MEBIBYTE} MiB")
    if math.ceil(plan.limits.cpus) > shape.cpus:
        raise TooMuch(plan, f"{shape.cpus} processor{'s' if shape.cpus > 1 else ''}")


def resources(plan: Plan, shape: Shape) -> Resources:
    """Limit QEMU: its time as planned, its memory as it was; the balloon decides how much of that is used."""
    memory = machine.resources(fitted(plan, shape)).memory
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
