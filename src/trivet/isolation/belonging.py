"""A mount whose files belong to somebody of the host, and inside to the instance's user: two ids change places.

    on disk       1000  0     others        -v .:/src:mine, for root inside and somebody's directory
    inside        0     1000  the same

So what root makes inside is 1000's on the host, what 1000 has there is root's inside, and nobody's files are lost.
"""

from __future__ import annotations

from trivet.isolation.plan import Mine, Owner
from trivet.oci.runtime import IdMapping

EVERYBODY = (1 << 32) - 1  # ids there are, without -1


def maps(mine: Mine, owner: Owner | None) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    """Compute the maps of users and of groups, from the ids on disk to those of the host that stand for them."""
    first, size = (owner.first, owner.size) if owner else (0, EVERYBODY)
    return exchanged(mine.uid, mine.user, first, size), exchanged(mine.gid, mine.group, first, size)


def exchanged(disk: int, inside: int, first: int, size: int) -> tuple[IdMapping, ...]:
    """Map ids on disk to `first` and up, two of them exchanged; one from outside takes the other's place."""
    places = {disk: inside, **({inside: disk} if disk < size else {inside: -1})} if disk != inside else {disk: disk}
    made, begin = [], 0
    for here in sorted(places):
        if begin < min(here, size):
            made.append(IdMapping(container_id=begin, host_id=first + begin, size=min(here, size) - begin))
        if places[here] >= 0:
            made.append(IdMapping(container_id=here, host_id=first + places[here], size=1))
        begin = here + 1
    if begin < size:
        made.append(IdMapping(container_id=begin, host_id=first + begin, size=size - begin))
    return tuple(made)
