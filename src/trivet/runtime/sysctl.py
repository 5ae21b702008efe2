"""Kernel parameters: only those that a namespace of the container's own keeps from the host (namespaces(7))."""

from __future__ import annotations

import re

from trivet.base.error import Denied, InvalidArgument
from trivet.launch.operation import Operation, Sysctl
from trivet.oci.runtime import Namespace
from trivet.runtime import namespace

_OWNED = (
    ("network", re.compile(r"net/.+")),
    ("ipc", re.compile(r"kernel/(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs/mqueue/.+")),
    ("uts", re.compile(r"kernel/domainname")),
)


class SysctlShared(Denied):
    """A parameter that would change the host."""

    def __init__(self, name: str) -> None:
        super().__init__(f"sysctl {name} is not the container's own: setting it would change the host")


class SysctlMalformed(InvalidArgument):
    """A name that isn't one."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is not the name of a sysctl")


def operations(wanted: dict[str, str], namespaces: tuple[Namespace, ...], *, own_kernel: bool) -> list[Operation]:
    """Set them, sorted. Raises `SysctlShared` and `SysctlMalformed`."""
    return [Sysctl(_path(name, namespaces, own_kernel), value) for name, value in sorted(wanted.items())]


def _path(name: str, namespaces: tuple[Namespace, ...], own_kernel: bool) -> str:
    path = _slashes(name)
    if not all(part not in ("", ".", "..") for part in path.split("/")):
        raise SysctlMalformed(name)
    if own_kernel:
        return path
    for kind, pattern in _OWNED:
        if pattern.fullmatch(path) and namespace.has(namespaces, kind):
            return path
    raise SysctlShared(name)


def _slashes(name: str) -> str:
    """Read a.b or a/b as sysctl(8) does: whichever separator comes first is the separator, the other a character."""
    first = next((letter for letter in name if letter in "./"), "/")
    return name if first == "/" else name.translate(str.maketrans("./", "/."))
