"""Which control group a container gets: one of ours, one that was delegated to an ordinary user, or none.

state.json keeps the answer (`Choice`), so that every later verb finds the same one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import msgspec

from trivet.base.error import InvalidArgument, TimedOut, Unsupported
from trivet.kernel import cgroup, procfs
from trivet.kernel.cgroup import Group, Layout
from trivet.kernel.cgroup_record import Hierarchy, Resources, Usage
from trivet.launch.monitor import Process
from trivet.oci import runtime as oci

_DEFAULT = "trivet-runtime"
_PATIENCE = 5.0


class NoGroup(Unsupported):
    """What needs a control group, where there is none."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"container {name} has no control group to {what}",
            hint="have systemd delegate one to this user, or be root",
        )


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Where: `path` below `hierarchies`; below all that are mounted when that is None.

    `unit` is systemd's when it makes the group, `user` if that is the systemd of an ordinary user's session;
    `properties` are what annotations set of it.
    """

    path: str
    hierarchies: tuple[Hierarchy, ...] | None = None
    unit: str = ""
    user: bool = False
    properties: dict[str, str] = {}


def choose(spec: oci.Spec, name: str, *, rootless: bool, systemd: bool = False) -> Choice:
    """Decide; `rootless` takes only what may be written to. Raises `InvalidArgument`."""
    asked = (spec.linux and spec.linux.cgroups_path) or ""
    if systemd:
        return _unit(spec, asked, name)
    path = _path(asked) if asked else f"{_DEFAULT}/{name}"
    if not rootless:
        return Choice(path=path)
    layout = cgroup.detect()
    if not asked:
        path = "/".join(part for part in (cgroup.own_path(), path) if part)
    return Choice(path=path, hierarchies=cgroup.delegated(layout, path).hierarchies)


def owner(spec: oci.Spec) -> int | None:
    """Tell to whom the control group goes: the program's user, if it can write to it in a namespace of its own.

    Runtime-spec, config-linux.md, "Cgroup ownership". None when nobody gets it.
    """
    linux = spec.linux or oci.Linux()
    shown = any(
        mount.type in ("cgroup", "cgroup2")
        and mount.destination.rstrip("/") == "/sys/fs/cgroup"
        and not {"ro", "rro"} & set(mount.options)
        for mount in spec.mounts
    )
    if not shown or not any(one.type == "cgroup" and not one.path for one in linux.namespaces):
        return None
    user = spec.process.user.uid if spec.process else 0
    if not any(one.type == "user" for one in linux.namespaces):
        return user
    for line in linux.uid_mappings:
        if line.container_id <= user < line.container_id + line.size:
            return line.host_id + user - line.container_id
    return None


def _unit(spec: oci.Spec, asked: str, name: str) -> Choice:
    from trivet.runtime import property, scope  # with them comes D-Bus, which few starts need

    user = os.geteuid() != 0
    unit, path = scope.place(asked, name, user=user)
    more = {key: text for key, text in spec.annotations.items() if key.startswith(property.PREFIX)}
    property.annotated(more)
    if not user:
        return Choice(path=path, unit=unit, properties=more)
    path = f"{scope.above()}/{path}"
    delegated = cgroup.delegated(cgroup.detect(), path, moved=True)
    return Choice(path=path, hierarchies=delegated.hierarchies, unit=unit, user=True, properties=more)


def _path(asked: str) -> str:
    parts = [part for part in asked.split("/") if part]
    if not parts or {".", ".."} & set(parts) or "\0" in asked:
        raise InvalidArgument(f"{asked!r} is no place for control groups - at `$.linux.cgroupsPath`")
    return "/".join(parts)


def find(choice: Choice, name: str, process: Callable[[], Process | None]) -> Group:
    """Open the group, which need not be there yet. `process` gives the container's program while it lives."""
    layout = cgroup.detect() if choice.hierarchies is None else Layout(choice.hierarchies)
    if choice.unit and layout.hierarchies:
        from trivet.runtime import property, scope

        more = property.annotated(choice.properties)
        return scope.Scope(layout, choice.path, choice.unit, user=choice.user, more=more)
    return Group(layout, choice.path) if layout.hierarchies else Without(choice.path, name, process)


class Without(Group):
    """No group: a container is what is in its program's pid namespace, which ends with it."""

    def __init__(self, path: str, name: str, process: Callable[[], Process | None]) -> None:
        super().__init__(Layout(()), path)
        self._name = name
        self._process = process

    def apply(self, resources: Resources) -> None:
        """Refuse limits: nothing would keep them."""
        if resources != Resources():
            raise NoGroup(self._name, "limit")

    def usage(self) -> Usage:
        """Refuse: nothing was counted."""
        raise NoGroup(self._name, "measure")

    def processes(self) -> list[int]:
        """List the processes of the program's pid namespace and those below them."""
        process = self._process()
        return procfs.namespace_members(process.pid) if process else []

    def freeze(self, frozen: bool) -> None:
        """Refuse."""
        raise NoGroup(self._name, "freeze" if frozen else "thaw")

    def frozen(self) -> bool:
        """Nothing can have frozen it."""
        return False

    def kill(self) -> None:
        """Kill the program, with which its pid namespace ends. Raises `TimedOut`."""
        deadline = time.monotonic() + _PATIENCE
        while (process := self._process()) is not None:
            try:
                process.signal(signal.SIGKILL)
            except ProcessLookupError:
                return
            if time.monotonic() > deadline:
                raise TimedOut(f"container {self._name} does not end")
            time.sleep(0.002)
