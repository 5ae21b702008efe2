"""Which ids of the host stand for an instance's: every container has a range of its own.

The ranges lie where systemd's list of ids (systemd.io, "Users, Groups, UIDs and GIDs on systemd Systems") has
nothing, and below 2^31, which some programs take for negative. An engine begins at a place of its own in
there, so that engines beside one another seldom meet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from trivet.base.error import Exhausted
from trivet.client.schema import InstanceRequest
from trivet.engine.instance.shared import of_host
from trivet.isolation.plan import Owner

FIRST, SIZE = 0x7000_0000, 1 << 16
COUNT = 0x1000_0000 // SIZE


class NoRangeLeft(Exhausted):
    """Every range is some instance's."""

    def __init__(self) -> None:
        super().__init__(
            f"no range of user ids is left, {COUNT} instances have one each",
            hint="remove instances, or use --userns host",
        )


class Owners:
    """Hands out ranges. `used` lists the owners of all recorded instances; `start` is where this engine begins.

    Ranges are taken one after the other. What was freed meanwhile is found out by reading the records, which takes
    long with many instances, only when all have been taken once.
    """

    def __init__(self, used: Callable[[], Iterable[Owner | None]], start: int) -> None:
        self._used = used
        self._next = start % COUNT
        self._lock = threading.Lock()
        self._taken: set[int] | None = None
        self._promised: set[int] = set()

    def reserve(self, directory: Path) -> Owner:
        """Take a free range for an instance; `forget` it once it is recorded, or won't be. Raises `NoRangeLeft`."""
        with self._lock:
            if self._taken is None or len(self._taken) == COUNT:
                self._taken = {owner.first for owner in self._used() if owner} | self._promised
            for step in range(COUNT):
                first = FIRST + (self._next + step) % COUNT * SIZE
                if first not in self._taken:
                    self._next = (self._next + step + 1) % COUNT
                    self._taken.add(first)
                    self._promised.add(first)
                    return Owner(path=str(directory / "user"), first=first, size=SIZE)
        raise NoRangeLeft

    def forget(self, owner: Owner) -> None:
        """End a reservation."""
        with self._lock:
            self._promised.discard(owner.first)


def separate(request: InstanceRequest) -> bool:
    """Tell whether an instance is to have users of its own.

    What is privileged has the host's: half of what it is privileged for can't be done otherwise. So has what is given
    a device, which lets in only users of the host, or shares one of the host's namespaces.
    """
    if request.isolation != "container" or request.userns == "host" or request.privileged:
        return False
    return request.userns == "private" or not (request.devices or of_host(request))
