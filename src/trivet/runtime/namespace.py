"""Which namespaces are new, which are joined, and when (namespaces(7), clone(2))."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_

from trivet.launch.operation import JoinPath, Operation, Unshare
from trivet.oci.runtime import Namespace

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

# Joined or made by the child itself, after it joined its cgroups: a cgroup namespace's root is where its maker stands.
_LATE = ("cgroup",)


def clone_flags(namespaces: tuple[Namespace, ...]) -> int:
    """Fold the new namespaces into clone3's flags."""
    return _fold(n.type for n in namespaces if not n.path and n.type not in _LATE)


def before_spawn(namespaces: tuple[Namespace, ...]) -> list[Operation]:
    """Join a pid namespace: it takes effect for children only."""
    return [JoinPath(n.path, FLAGS[n.type]) for n in namespaces if n.path and n.type == "pid"]


def in_child(namespaces: tuple[Namespace, ...]) -> list[Operation]:
    """Join the other namespaces given by path, the mount namespace last: behind it host paths are gone."""
    given = [n for n in namespaces if n.path and n.type != "pid"]
    joins: list[Operation] = [
        JoinPath(n.path, FLAGS[n.type]) for n in sorted(given, key=lambda n: (n.type == "mount", n.type != "user"))
    ]
    late = _fold(n.type for n in namespaces if not n.path and n.type in _LATE)
    return [*joins, *([Unshare(late)] if late else [])]


def has(namespaces: tuple[Namespace, ...], kind: str, *, new: bool = False) -> bool:
    """Tell whether a namespace of this kind is the container's own, with `new` also freshly made."""
    return any(n.type == kind and not (new and n.path) for n in namespaces)


def _fold(kinds: Iterable[str]) -> int:
    return reduce(or_, (FLAGS[kind] for kind in kinds), 0)
