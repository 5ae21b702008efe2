"""What an instance's limits promise. Pure."""

from __future__ import annotations

import math

from trivet.engine.capacity.model import WEIGHT, Promise
from trivet.isolation.machine import DEFAULT_CPUS, DEFAULT_MEMORY, SMALLEST_MEMORY
from trivet.isolation.plan import Level, Plan


def promise(plan: Plan, acceleration: str) -> Promise:
    """Read a plan's limits: `--memory` is the maximum, `--memory-reservation` the minimum, `--cpu-shares` the weight.

    A machine always has a limit, and as many processors as it shows its guest.
    """
    limits = plan.limits
    maximum, processors = limits.memory, limits.cpus
    if plan.level is Level.VM:
        maximum = max(maximum or DEFAULT_MEMORY, SMALLEST_MEMORY)
        processors = float(math.ceil(processors) or DEFAULT_CPUS.get(acceleration, 1))  # type: ignore[call-overload]
    return Promise(
        id=plan.id,
        name=plan.name,
        level=plan.level,
        minimum=min(limits.memory_reservation, maximum) if maximum else limits.memory_reservation,
        maximum=maximum,
        weight=limits.cpu_shares or WEIGHT,
        processors=processors,
    )
