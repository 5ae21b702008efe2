"""What the demo finds out about the service at one level, and the table it makes of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from bench import memory
from bench.table import draw

from demo.visitor import Machine, look_around
from trivet.client.schema import Instance
from trivet.client.schema_host import Info, LevelInfo

MADE = "guestbook: cluster made in "  # and "... ms", in the service's log


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One level: `first_answer` and `cluster` in seconds (0: the volume held the cluster), `beyond` in bytes."""

    level: LevelInfo
    first_answer: float
    cluster: float
    beyond: int
    machine: Machine


def observe(instance: Instance, info: Info, first_answer: float, log: str) -> Observation:
    """Look at a running instance from inside and from outside."""
    machine = look_around(instance.ports[0].host_port)
    return Observation(
        level=next(level for level in info.levels if level.level == instance.isolation),
        first_answer=first_answer,
        cluster=cluster_time(log),
        beyond=beyond(instance, machine),
        machine=machine,
    )


def cluster_time(log: str) -> float:
    """Read from the service's log how long it made the database cluster."""
    _, found, rest = log.partition(MADE)
    return int(rest.split()[0]) / 1000 if found else 0.0


def beyond(instance: Instance, machine: Machine) -> int:
    """Measure what the host spends on an instance beyond the service's own processes.

    Everything is the monitor with its descendants and whatever else is in the instance's cgroup. The service's
    processes are among them, but for a VM: there they are part of QEMU, and the guest says how large they are.
    """
    everything = memory.family(memory.parent(instance.pid)) | memory.cgroup_members(instance.pid)
    if instance.isolation == "vm":
        return memory.total(everything) - machine.memory
    return memory.total(everything - memory.family(instance.pid))


def table(observations: list[Observation], width: int) -> str:
    """Lay the levels out side by side; what nobody has to tell is left out."""
    rows = [[title, *map(cell, observations)] for title, cell in ROWS]
    return draw(["", *(seen.level.level for seen in observations)], [row for row in rows if any(row[1:])], width=width)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count < 10e6 else f"{count / 1e6:.0f} MB"


def _whose(seen: Observation) -> str:
    return "the guest" if seen.level.level == "vm" else "the host"


def _kernel(seen: Observation) -> str:
    return f"{seen.machine.kernel}, {'its own' if seen.level.level == 'vm' else 'the host’s'}"


def _processor(seen: Observation) -> str:
    return {"native": "the processor", "kvm": "the processor (KVM)"}.get(seen.level.acceleration, "an emulated one")


def _interfaces(seen: Observation) -> str:
    names = seen.machine.interfaces
    return ", ".join(names) if len(names) <= MANY else f"{', '.join(names[:MANY])}, … ({len(names)} in all)"


def _user(seen: Observation) -> str:
    """Translate the user through the map of its user namespace: rows of first inside, first outside, count."""
    user = seen.machine.user
    outside = next(
        (out + user - first for first, out, count in seen.machine.users if first <= user < first + count), -1
    )
    return f"user {outside} of {_whose(seen)}"


MANY = 4  # interfaces worth naming
ROWS: tuple[tuple[str, Callable[[Observation], str]], ...] = (
    ("start to first answer", lambda seen: _seconds(seen.first_answer)),
    ("· making the cluster in it", lambda seen: _seconds(seen.cluster) if seen.cluster else ""),
    ("memory beyond the service", lambda seen: _size(seen.beyond)),
    ("kernel seen inside", _kernel),
    ("processor", _processor),
    ("host name inside", lambda seen: seen.machine.hostname),
    ("process 1 inside", lambda seen: seen.machine.first),
    ("processes visible", lambda seen: str(seen.machine.processes)),
    ("network interfaces", _interfaces),
    ("runs as", _user),
    ("isolated", lambda seen: ", ".join(seen.level.unshared) or "nothing"),
)
