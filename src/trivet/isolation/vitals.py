"""How a guest says it is: what its `vitals` builtin writes (launch/native/vitals.c). It may lie, but only of itself."""

from __future__ import annotations

import math

from trivet.isolation.driver import FileSystem, Inside, Pressure
from trivet.isolation.plan import Program

ASKED = Program(argv=("/",), builtin="vitals")
_SYSTEMS = 32


def parse(text: str) -> tuple[Inside, int]:
    """Read it; the number of processes comes last. Lines that say nothing are left out."""
    inside, processes = Inside(memory=0, available=0), 0
    pressure: list[Pressure] = []
    systems: list[FileSystem] = []
    for line in text.splitlines():
        try:
            match line.split(" ", 3):
                case ["pids", count]:
                    processes = _natural(count)
                case ["memory", total, available]:
                    inside = Inside(memory=_natural(total), available=_natural(available))
                case ["pressure", ("cpu" | "memory" | "io") as kind, some, full]:
                    pressure.append(Pressure(kind=kind, some=_percent(some), full=_percent(full)))
                case ["system", size, used, path] if len(systems) < _SYSTEMS:
                    systems.append(FileSystem(path=path, size=_natural(size), used=_natural(used)))
        except ValueError:
            continue
    return Inside(memory=inside.memory, available=inside.available, pressure=tuple(pressure), systems=tuple(systems)), (
        processes
    )


def _natural(word: str) -> int:
    value = int(word)
    if not 0 <= value < 1 << 63:
        raise ValueError(word)
    return value


def _percent(word: str) -> float:
    value = float(word)
    if not math.isfinite(value) or not 0 <= value <= 100:
        raise ValueError(word)
    return value
