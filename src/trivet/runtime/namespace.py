"""Which namespaces are new, which are joined, and when (namespaces(7), clone(2))."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Literal

from trivet.base.error import InvalidArgument
from trivet.launch.operation import JoinPath, Operation, Unshare, WriteFile
from trivet.oci.runtime import Linux, Namespace, TimeOffset

FLAGS = {
    "time": 0x00000080,
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}

# Made by the child itself, after it joined its cgroups: a cgroup namespace's root is where its maker stands.
_LATE = ("cgroup",)
# Joined, or made, by the launcher: they take effect for children only.
_EARLY = ("pid", "time")


def clone_flags(namespaces: tuple[Namespace, ...]) -> int:
    """Fold the new namespaces into clone3's flags."""
    return _fold(n.type for n in namespaces if not n.path and n.type not in (*_LATE, "time"))


def before_spawn(
    namespaces: tuple[Namespace, ...],
    offsets: dict[Literal["monotonic", "boottime"], TimeOffset],
    *,
    ordinary: bool = False,
) -> list[Operation]:
    """Join and make what the child is to be born in.

    With a user namespace that is all but the mount namespace: the launcher may join what the child no more may.
    The user namespace itself comes last; for an `ordinary` user first, who has rights nowhere else.
    """
    early = [n for n in namespaces if n.path and _launcher_joins(n, namespaces)]
    early.sort(key=lambda n: (n.type == "user") != ordinary)
    steps: list[Operation] = [JoinPath(n.path, FLAGS[n.type]) for n in early]
    if not has(namespaces, "time", new=True):
        return steps
    # A clock can be moved until somebody is in the namespace (time_namespaces(7)).
    lines = "".join(f"{clock} {offset.secs} {offset.nanosecs}\n" for clock, offset in sorted(offsets.items()))
    clocks = [WriteFile("/proc/self/timens_offsets", lines.encode())] if lines else []
    return [Unshare(FLAGS["time"]), *clocks, *steps]


def in_child(namespaces: tuple[Namespace, ...]) -> list[Operation]:
    """Join the other namespaces given by path, the mount namespace last: behind it host paths are gone."""
    given = [n for n in namespaces if n.path and not _launcher_joins(n, namespaces)]
    joins: list[Operation] = [JoinPath(n.path, FLAGS[n.type]) for n in sorted(given, key=lambda n: n.type == "mount")]
    late = _fold(n.type for n in namespaces if not n.path and n.type in _LATE)
    return [*joins, *([Unshare(late)] if late else [])]


def has(namespaces: tuple[Namespace, ...], kind: str, *, new: bool = False) -> bool:
    """Tell whether a namespace of this kind is the container's own, with `new` also freshly made."""
    for one in namespaces:  # a plan asks a dozen times: a generator for each takes longer than the answer
        if one.type == kind:
            return not (new and one.path)
    return False


def check(linux: Linux) -> None:
    """Refuse a namespace that is asked for twice, and what needs one that isn't. Raises `NamespaceWrong`."""
    kinds = [n.type for n in linux.namespaces]
    for place, kind in enumerate(kinds):
        if kind in kinds[:place]:
            raise NamespaceWrong(f"namespaces[{place}]", f"a second {kind} namespace")
    if (linux.uid_mappings or linux.gid_mappings) and "user" not in kinds:
        raise NamespaceWrong("uidMappings", "mappings without a user namespace")
    if has(linux.namespaces, "user", new=True) and not (linux.uid_mappings and linux.gid_mappings):
        raise NamespaceWrong("uidMappings", "a user namespace without uidMappings and gidMappings")
    if linux.time_offsets and not has(linux.namespaces, "time", new=True):
        raise NamespaceWrong("timeOffsets", "offsets without a new time namespace")
    for mapping in (*linux.uid_mappings, *linux.gid_mappings):
        if not (0 <= mapping.container_id < _ID_END and 0 <= mapping.host_id < _ID_END and 0 < mapping.size < _ID_END):
            raise NamespaceWrong("uidMappings", "a mapping out of range")


_ID_END = 1 << 32


class NamespaceWrong(InvalidArgument):
    """Namespaces that contradict one another."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"the configuration has {problem} - at `$.linux.{path}`")


def _launcher_joins(one: Namespace, namespaces: tuple[Namespace, ...]) -> bool:
    return one.type in _EARLY or (has(namespaces, "user") and one.type != "mount")


def _fold(kinds: Iterable[str]) -> int:
    return reduce(or_, (FLAGS[kind] for kind in kinds), 0)
