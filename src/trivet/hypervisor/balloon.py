"""The balloon of a running machine: how much of its memory the guest has, needs and gives back.

    /machine/peripheral/balloon          the device, in QEMU's object model
        guest-stats-polling-interval     seconds between two questions to the guest; 0: it isn't asked
        guest-stats                      its last answer, and when that was

The guest's numbers are its own claims: they decide how much it keeps, never how much another one loses.
"""

from __future__ import annotations

from typing import Any

import msgspec

from trivet.hypervisor.qmp import Qmp

DEVICE = "/machine/peripheral/balloon"
INTERVAL = 1
_UNKNOWN = (1 << 64) - 1


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's memory in bytes: `size` is what its balloon leaves it, `available` what it could use at once.

    `total` is what its kernel doesn't keep for itself; `answered` is Unix time, 0 while it hasn't said anything.
    `faults` and `swapped` count since its boot.
    """

    size: int
    total: int = 0
    available: int = 0
    faults: int = 0
    swapped: int = 0
    answered: int = 0


def inquire(qmp: Qmp) -> Guest:
    """Read what the guest has and said last, and see to it that it is asked again and again."""
    size = int(qmp.execute("query-balloon")["actual"])
    if qmp.execute("qom-get", path=DEVICE, property="guest-stats-polling-interval") != INTERVAL:
        qmp.execute("qom-set", path=DEVICE, property="guest-stats-polling-interval", value=INTERVAL)
    return guest(size, qmp.execute("qom-get", path=DEVICE, property="guest-stats"))


def guest(size: int, answer: dict[str, Any]) -> Guest:
    """Translate QEMU's answer; what the guest didn't say is 0, and nothing is larger than its memory."""
    said = answer.get("stats", {})

    def value(name: str) -> int:
        found = said.get(f"stat-{name}", _UNKNOWN)
        return 0 if found == _UNKNOWN else int(found)

    total = min(value("total-memory"), size)
    return Guest(
        size=size,
        total=total,
        available=min(value("available-memory") or value("free-memory"), total),
        faults=value("major-faults"),
        swapped=value("swap-out"),
        answered=int(answer.get("last-update", 0)),
    )


def leave(qmp: Qmp, memory: int) -> None:
    """Ask the guest to make do with `memory` bytes; it gives the rest back as fast as it can find it."""
    qmp.balloon(memory)
