"""Memory and processors that are plugged into a running machine, and memory that is taken out of it again.

Memory comes in modules (pc-dimm), a slot each, of whole blocks of what a Linux guest can do with or without. A
processor stays: after one was taken out, QEMU 7.2 under emulation goes on telling it of changes to the memory it had,
and crashes. A guest can stop using one.
"""

from __future__ import annotations

import secrets
import time

import msgspec

from trivet.hypervisor.qmp import Qmp

BLOCK = 128 << 20
"""Bytes; the smallest part of its memory that Linux can do without on x86 (memory-hotplug.rst)."""
SLOTS = 4
_STEP = 0.05


class Module(msgspec.Struct, frozen=True):
    """Memory that was plugged in."""

    name: str
    size: int


class Stock(msgspec.Struct, frozen=True):
    """What a machine has beyond what it began with, and how many processors, of how many it can have."""

    modules: tuple[Module, ...]
    processors: int
    most: int

    @property
    def memory(self) -> int:
        """Sum up the modules."""
        return sum(module.size for module in self.modules)


def stock(qmp: Qmp) -> Stock:
    """Ask a machine what it has."""
    places = qmp.execute("query-hotpluggable-cpus")
    return Stock(modules(qmp), sum("qom-path" in place for place in places), len(places))


def modules(qmp: Qmp) -> tuple[Module, ...]:
    """List what was plugged in, largest first."""
    found = [each["data"] for each in qmp.execute("query-memory-devices") if each["type"] == "dimm"]
    return tuple(sorted((Module(each["id"], each["size"]) for each in found), key=lambda each: -each.size))


def add_memory(qmp: Qmp, size: int) -> None:
    """Plug in at least so much. A file server of the host's would see it, so it is shared."""
    name = f"module-{secrets.token_hex(4)}"
    whole = -(-size // BLOCK) * BLOCK
    qmp.execute("object-add", **{"qom-type": "memory-backend-memfd", "id": _behind(name), "size": whole, "share": True})
    try:
        qmp.execute("device_add", driver="pc-dimm", id=name, memdev=_behind(name))
    except BaseException:
        qmp.execute("object-del", id=_behind(name))
        raise


def take_memory(qmp: Qmp, module: Module, patience: float) -> bool:
    """Ask the guest to do without a module; whether it has let go of it within `patience` seconds."""
    qmp.execute("device_del", id=module.name)
    deadline = time.monotonic() + patience
    while module.name in (each.name for each in modules(qmp)):
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP)
    qmp.execute("object-del", id=_behind(module.name))
    return True


def add_processors(qmp: Qmp, count: int) -> None:
    """Plug in so many, in the order of their numbers; the guest has to begin to use them."""
    places = [place for place in qmp.execute("query-hotpluggable-cpus") if "qom-path" not in place]
    places.sort(key=lambda place: sorted(place["props"].items()))
    for place in places[:count]:
        qmp.execute("device_add", driver=place["type"], **place["props"])


def _behind(module: str) -> str:
    return f"{module}-memory"
