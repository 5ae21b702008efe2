"""Who the program is and what it may do, in the one order that works."""

from __future__ import annotations

from functools import lru_cache

from trivet.base.error import InvalidArgument
from trivet.kernel import capability
from trivet.launch.operation import (
    Become,
    Capabilities,
    Identity,
    NoNewPrivileges,
    OomScore,
    Operation,
    Rlimit,
    Seccomp,
    Umask,
    User,
)
from trivet.oci import runtime as oci
from trivet.runtime import seccomp

_RLIMITS = """
CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME
"""
RLIMITS = tuple(f"RLIMIT_{name}" for name in _RLIMITS.split())
"""asm-generic/resource.h: the place is the number."""


_NOBODY_CAN = (1 << 32) - 1  # -1 means "leave as it is" to setuid(2) and its like


class UnknownLimit(InvalidArgument):
    """A limit that doesn't exist, or is asked for twice."""

    def __init__(self, word: str, place: int) -> None:
        super().__init__(f"resource limit {word} is unknown or repeated - at `$.process.rlimits[{place}]`")


def limits(process: oci.Process) -> list[Operation]:
    """Set resource limits and the score by which the kernel chooses whom to kill."""
    found: list[Operation] = []
    kinds = [limit.type for limit in process.rlimits]
    for place, limit in enumerate(process.rlimits):
        if limit.type not in RLIMITS or limit.type in kinds[:place]:
            raise UnknownLimit(limit.type, place)
        if not 0 <= limit.soft < 1 << 64 or not 0 <= limit.hard < 1 << 64:
            raise InvalidArgument(f"resource limit {limit.type} is out of range - at `$.process.rlimits[{place}]`")
        found.append(Rlimit(RLIMITS.index(limit.type), _signed(limit.soft), _signed(limit.hard)))
    if process.oom_score_adj is not None:
        if not -1000 <= process.oom_score_adj <= 1000:
            raise InvalidArgument("the score is not within -1000 and 1000 - at `$.process.oomScoreAdj`")
        found.append(OomScore(process.oom_score_adj))
    return found


def user(process: oci.Process, spec: str | None, groups: tuple[str, ...]) -> Operation:
    """Find out who the program will be: by name inside the root, or by the spec's numbers."""
    if spec is not None:
        return User(spec, groups)
    for number in (process.user.uid, process.user.gid, *process.user.additional_gids):
        if not 0 <= number < _NOBODY_CAN:
            raise InvalidArgument(f"user or group id {number} is out of range - at `$.process.user`")
    numbers = tuple(str(gid) for gid in process.user.additional_gids)
    return Identity(process.user.uid, process.user.gid, numbers)


def become(process: oci.Process, profile: oci.Seccomp | None) -> list[Operation]:
    """Become the user with just these capabilities.

    A filter needs no_new_privs or CAP_SYS_ADMIN: with the former it is installed last, so that it holds
    for as little of our own code as possible; without, before the capability is gone.
    """
    filtering: list[Operation] = []
    if profile is not None:
        filtering = [Seccomp(seccomp.program(profile), seccomp.flags(profile))]
    early = [] if process.no_new_privileges else filtering
    late: list[Operation] = [NoNewPrivileges(), *filtering] if process.no_new_privileges else []
    mask: list[Operation] = [] if process.user.umask is None else [Umask(process.user.umask)]
    return [*mask, *early, Become(), *_capabilities(process.capabilities), *late]


def _capabilities(sets: oci.Capabilities | None) -> list[Operation]:
    if sets is None:
        return []
    return [
        Capabilities(
            bounding=_mask(sets.bounding),
            effective=_mask(sets.effective),
            inheritable=_mask(sets.inheritable),
            permitted=_mask(sets.permitted),
            ambient=_mask(sets.ambient),
        )
    ]


@lru_cache(64)  # nearly all have the same
def _mask(names: tuple[str, ...]) -> int:
    """Fold; an unknown one is left out, as the specification asks, and `warning` tells."""
    return capability.mask(name for name in names if capability.known(name))


def _signed(value: int) -> int:
    """Spell RLIM_INFINITY, the largest unsigned number, as -1."""
    return -1 if value >= (1 << 63) else value
