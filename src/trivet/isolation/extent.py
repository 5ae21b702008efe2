"""How much a running machine of its own may have: by its balloon, and by the processor time of its control group."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from trivet.base.error import Conflict
from trivet.hypervisor.qmp import Qmp
from trivet.isolation import computer, elastic
from trivet.isolation.plan import Plan
from trivet.kernel.cgroup import Group


def allot(plan: Plan, memory: int) -> None:
    """Take memory from the guest, or give it back, up to what it was promised."""
    elastic.leave(socket(plan), min(memory, computer.memory(plan)))


def resize(plan: Plan, group: Group) -> None:
    """Apply the plan's limits, as far as what the machine was started with allows. Raises `Conflict`, `InUse`."""
    with Qmp(socket(plan)) as qmp:
        total = int(qmp.execute("query-memory-size-summary")["base-memory"])
        processors = len(qmp.execute("query-cpus-fast"))
    wanted = computer.memory(plan)
    if wanted > total or math.ceil(plan.limits.cpus) > processors:
        raise Conflict(
            f"cannot give running machine {plan.name} more than the {total >> 20} MiB and {processors} processors it "
            "was switched on with",
            hint=f"trivet vm stop {plan.name}, then update it",
        )
    elastic.leave(socket(plan), wanted)
    whole = msgspec.structs.replace(plan, limits=msgspec.structs.replace(plan.limits, memory=total))
    group.apply(computer.resources(whole))


def socket(plan: Plan) -> Path:
    """Tell where QEMU listens."""
    return Path(plan.directory, computer.QMP)
