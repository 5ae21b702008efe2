"""How much memory a group has, and how much it may have for the time being.

Version 1 bounds with `memory.limit_in_bytes` while its out-of-memory killer is off: a task that needs more waits in its
page fault until it is given some (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control"). Version 2 bounds with
`memory.high`, which slows those down that go beyond it (cgroup-v2.rst). Either way page cache goes first.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import msgspec

from trivet.kernel.cgroup import Group
from trivet.kernel.cgroup_record import number, table

_STALLED = 0.1
"""Share of the last ten seconds in which something waited for memory that is too much."""
_FULL = 32  # a part of the bound: with less than that left it is full
_STEP = 4096


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a group holds, those of them it can't do without, its bound (0: none); whether something waits for more."""

    held: int = 0
    used: int = 0
    bound: int = 0
    starved: bool = False


def measure(group: Group) -> Memory:
    """Read what the group has; a group that isn't there has nothing."""
    place = _place(group)
    if place is None:
        return Memory()
    version, directory = place
    return _unified(directory) if version == 2 else _separate(directory)


def bound(group: Group, memory: int, limit: int) -> None:
    """Let the group have `memory` bytes until it is told otherwise; at its `limit` it is as it was made.

    What is in use stays: OSError with EBUSY when the group can't do with so little.
    """
    place = _place(group)
    if place is None:
        raise FileNotFoundError(errno.ENOENT, "no memory controller is mounted", group.path)
    version, directory = place
    free = memory >= limit
    if version == 2:
        _write(directory / "memory.high", "max" if free else str(memory))
        return
    if not free:
        _write(directory / "memory.oom_control", "1")
    _write(directory / "memory.limit_in_bytes", str(min(memory, limit) // _STEP * _STEP))
    if free:
        _write(directory / "memory.oom_control", "0")


def lift(group: Group) -> None:
    """Let the group's own limit be its bound again."""
    place = _place(group)
    if place is not None:
        version, directory = place
        _write(directory / ("memory.high" if version == 2 else "memory.oom_control"), "max" if version == 2 else "0")


def stalled(text: str | None = None) -> float:
    """Read the share of the last ten seconds in which something on this machine waited for memory; 0 if unknown."""
    if text is None:
        with suppress(OSError):
            text = Path("/proc/pressure/memory").read_text()
    words = (text or "").split()
    values = dict(word.split("=", 1) for word in words[:5] if "=" in word)
    return float(values.get("avg10", 0)) / 100


def _separate(directory: Path) -> Memory:
    held, limit = (number(_read(directory / f"memory.{name}_in_bytes") or "0") for name in ("usage", "limit"))
    statistics = table(_read(directory / "memory.stat"))
    waits = table(_read(directory / "memory.oom_control"))
    spare = statistics.get("total_inactive_file", 0)
    full = bool(limit) and limit - held + spare < limit // _FULL
    return Memory(
        held=held,
        used=max(held - spare, 0),
        bound=limit,
        starved=waits.get("under_oom", 0) == 1 or (full and waits.get("oom_kill_disable", 0) == 1),
    )


def _unified(directory: Path) -> Memory:
    held, high = (number(_read(directory / f"memory.{name}") or "0") for name in ("current", "high"))
    spare = table(_read(directory / "memory.stat")).get("inactive_file", 0)
    full = bool(high) and high - held + spare < high // _FULL
    return Memory(
        held=held,
        used=max(held - spare, 0),
        bound=high or number(_read(directory / "memory.max") or "0"),
        starved=full or (bool(high) and stalled(_read(directory / "memory.pressure")) > _STALLED),
    )


def _place(group: Group) -> tuple[int, Path] | None:
    places = zip(group.layout.hierarchies, group.directories, strict=True)
    found = [
        (hierarchy.version, Path(directory)) for hierarchy, directory in places if "memory" in hierarchy.controllers
    ]
    return found[0] if found else None


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        error.filename = str(path)
        raise


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
