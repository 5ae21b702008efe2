"""How the kernel treats the program: scheduling, priorities, processors, memory nodes, personality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_

from trivet.base.error import InvalidArgument
from trivet.launch import operation
from trivet.launch.operation import Affinity, Operation
from trivet.oci import runtime as oci

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}
_DOMAINS = {"LINUX": 0x0, "LINUX32": 0x8}
_IO_CLASS_SHIFT = 13
_LIST_END = 8192


class UnknownWord(InvalidArgument):
    """A word or number that the kernel has nothing for."""

    def __init__(self, path: str, word: object) -> None:
        super().__init__(f"{word!r} is unknown or out of range - at `$.{path}`")


def operations(process: oci.Process, linux: oci.Linux) -> list[Operation]:
    """Spell out what the specification says. Raises `UnknownWord` with the JSON path."""
    found: list[Operation] = []
    if linux.personality is not None:
        found.append(_personality(linux.personality))
    if linux.memory_policy is not None:
        found.append(_memory(linux.memory_policy))
    if process.io_priority is not None:
        found.append(_io(process.io_priority))
    if process.scheduler is not None:
        found.append(_scheduler(process.scheduler))
    return found


def affinity(text: str, path: str) -> list[Operation]:
    """Spell out a list of processors, none for an empty one."""
    return [Affinity(_mask(text, path))] if text else []


def _scheduler(s: oci.Scheduler) -> Operation:
    place = "process.scheduler"
    for name in ("runtime", "deadline", "period"):
        if not 0 <= getattr(s, name) < 1 << 63:
            raise UnknownWord(f"{place}.{name}", getattr(s, name))
    if not (-20 <= s.nice <= 19 and 0 <= s.priority <= 99):
        raise UnknownWord(place, s.nice if s.priority == 0 else s.priority)
    return operation.Scheduler(
        policy=_one(POLICIES, s.policy, f"{place}.policy"),
        flags=_fold(_SCHEDULER_FLAGS, s.flags, f"{place}.flags"),
        nice=s.nice,
        priority=s.priority,
        runtime=s.runtime,
        deadline=s.deadline,
        period=s.period,
    )


def _io(priority: oci.IoPriority) -> Operation:
    if not 0 <= priority.priority <= 7:
        raise UnknownWord("process.ioPriority.priority", priority.priority)
    kind = _one(_IO_CLASSES, priority.class_, "process.ioPriority.class")
    return operation.IoPriority(kind << _IO_CLASS_SHIFT | priority.priority)


def _memory(policy: oci.MemoryPolicy) -> Operation:
    mode = _one(MEMORY_MODES, policy.mode, "linux.memoryPolicy.mode")
    flags = _fold(MEMORY_FLAGS, policy.flags, "linux.memoryPolicy.flags")
    nodes = _mask(policy.nodes, "linux.memoryPolicy.nodes") if policy.nodes else b""
    return operation.MemoryPolicy(mode | flags, nodes)


def _personality(persona: oci.Personality) -> Operation:
    if persona.flags:
        raise UnknownWord("linux.personality.flags", persona.flags[0])
    return operation.Personality(_one(_DOMAINS, persona.domain, "linux.personality.domain"))


def _one(table: Mapping[str, int], word: str, path: str) -> int:
    if word not in table:
        raise UnknownWord(path, word)
    return table[word]


def _fold(table: Mapping[str, int], words: Iterable[str], path: str) -> int:
    return reduce(or_, (_one(table, word, path) for word in words), 0)


def _mask(text: str, path: str) -> bytes:
    """Read a list such as "0-3,7" as a bit mask of whole words."""
    value = 0
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise UnknownWord(path, text)
        low, high = int(first), int(last or first)
        if not low <= high < _LIST_END:
            raise UnknownWord(path, text)
        value |= ((1 << (high - low + 1)) - 1) << low
    return value.to_bytes((value.bit_length() + 63) // 64 * 8, "little")
