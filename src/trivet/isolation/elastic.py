"""Giving instances memory and taking it back while they run: a group's bound, a machine's balloon.

A machine is bounded twice. Its balloon takes what its guest doesn't use; and what its program may use before it is
slowed down (memory.high in the guest) lies below what the balloon leaves, so that a guest that wants more waits for it
instead of killing somebody.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from trivet.base.error import Conflict
from trivet.hypervisor import balloon
from trivet.hypervisor.qmp import Qmp
from trivet.isolation.driver import Footprint
from trivet.isolation.plan import Plan
from trivet.kernel import cgroup_memory, procfs
from trivet.kernel.cgroup import Group

PATIENCE = 2.0
KERNEL = 24 << 20
"""What a guest's kernel needs beside its program once it has booted, and what must stay free for it to work."""
OVERHEAD = 256 << 20
"""What QEMU needs beyond the guest's memory: translated code, devices, virtiofsd."""
SMALLEST = 96 << 20
"""A guest isn't left with less."""
_NARROW = 32  # a part of the guest's memory: with no more than that beside its kernel's it waits for more
_PAGE = os.sysconf("SC_PAGE_SIZE")


class InUse(Conflict):
    """Memory that can't be taken as the instance uses it."""

    def __init__(self, plan: Plan, memory: int) -> None:
        super().__init__(f"cannot leave instance {plan.name} with {memory >> 20} MiB: it uses more")


def elastic(plan: Plan) -> bool:
    """Tell whether what the instance may have can lie between two bounds."""
    return 0 < plan.limits.memory_reservation < plan.limits.memory


def of_group(group: Group) -> Footprint:
    """Measure an instance on this kernel."""
    found = cgroup_memory.measure(group)
    return Footprint(
        held=found.held,
        used=found.used,
        resident=found.held,
        allotted=found.bound,
        starved=found.starved,
        waited=procfs.waited(group.processes()),
    )


def bound_group(plan: Plan, group: Group, memory: int) -> None:
    """Bound an instance on this kernel. Raises `InUse`."""
    try:
        cgroup_memory.bound(group, memory, plan.limits.memory)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InUse(plan, memory) from error
        raise


def of_machine(socket: Path, pid: int, group: Group) -> Footprint:
    """Measure a machine: what its guest has and says it could do without."""
    with Qmp(socket, patience=PATIENCE) as qmp:
        guest = balloon.inquire(qmp)
    used = min(guest.size - guest.available + KERNEL, guest.size) if guest.total else guest.size
    held = really(guest.size, _resident(pid))
    return Footprint(
        held=held,
        used=used,
        resident=min(held, _resident(pid)),
        allotted=guest.size,
        starved=bool(guest.total) and guest.available < KERNEL + guest.size // _NARROW,
        waited=procfs.waited(group.processes()),
    )


def really(size: int, resident: int) -> int:
    """Tell what a guest holds: how far its balloon is filled it says itself, and QEMU's memory shows if it is a lie."""
    return max(size, resident - OVERHEAD)


def leave(socket: Path, memory: int) -> int:
    """Set a machine's balloon; how much memory its kernel has kept for itself since it booted."""
    with Qmp(socket, patience=PATIENCE) as qmp:
        guest = balloon.inquire(qmp)
        balloon.leave(qmp, max(memory, SMALLEST))
    return _reserved(guest)


def program_bound(memory: int, limit: int, reserved: int) -> str:
    """Spell what the program may use before it waits, for memory.high; `reserved` never was the guest's to use."""
    return "max" if memory >= limit else str(max(max(memory, SMALLEST) - reserved - KERNEL, SMALLEST // 2))


def inside(socket: Path) -> tuple[int, int]:
    """Tell how much memory a guest has now, and how much of it its kernel has kept for itself since it booted."""
    with Qmp(socket, patience=PATIENCE) as qmp:
        guest = balloon.inquire(qmp)
    return guest.size, _reserved(guest)


def _reserved(guest: balloon.Guest) -> int:
    return guest.size - guest.total if guest.total else KERNEL


def _resident(pid: int) -> int:
    try:
        return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
