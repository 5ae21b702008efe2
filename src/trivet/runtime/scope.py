"""A control group that systemd makes: a transient scope, delegated to us, or a slice.

A scope is there for as long as it holds a process, so one of ours holds it until the container's is in it. Below the
unit everything is ours (systemd, "Control Group APIs and Delegation"): limits are set as properties, so that systemd
doesn't take them back, and as files, since it doesn't know them all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from trivet.base.error import InvalidArgument
from trivet.kernel.cgroup import Group, Layout
from trivet.kernel.cgroup_record import Resources, Write
from trivet.runtime import property as properties
from trivet.runtime import systemd
from trivet.runtime.systemd import Manager, Property

_SLICE = re.compile(r"[A-Za-z0-9:_.\\]+(-[A-Za-z0-9:_.\\]+)*\.slice|-\.slice")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-]{1,249}")


class NotAUnit(InvalidArgument):
    """A place that isn't written as units are."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path!r} is not slice:prefix:name, as systemd's control groups are named - at `$.linux.cgroupsPath`"
        )


def place(asked: str, name: str, *, user: bool) -> tuple[str, str]:
    """Give the unit and the path of its control group, for `asked` or a container `name`. Raises `NotAUnit`."""
    parts = asked.split(":") if asked else ["", "trivet", name]
    if len(parts) != 3 or not parts[2]:
        raise NotAUnit(asked)
    above = parts[0] or ("user.slice" if user else "system.slice")
    unit = parts[2] if parts[2].endswith(".slice") else "-".join(part for part in parts[1:] if part) + ".scope"
    if not _SLICE.fullmatch(above) or not _UNIT.fullmatch(unit):
        raise NotAUnit(asked)
    if unit.endswith(".slice"):
        if not _SLICE.fullmatch(unit) or unit == "-.slice":
            raise NotAUnit(asked)
        return unit, expand(unit)
    return unit, "/".join(part for part in (expand(above), unit) if part)


def expand(name: str) -> str:
    """Give a slice's path: each dash is a slice inside the one before (systemd.slice(5))."""
    words = name.removesuffix(".slice").split("-")
    return "/".join("-".join(words[: count + 1]) + ".slice" for count in range(len(words)) if words[count])


def above() -> str:
    """Give the control group below which an ordinary user's systemd has its units."""
    with Manager(user=True) as manager:
        return manager.root()


class Scope(Group):
    """The control group of a unit."""

    def __init__(self, layout: Layout, path: str, unit: str, *, user: bool, more: Sequence[Property] = ()) -> None:
        super().__init__(layout, path)
        self._unit = unit
        self._user = user
        self._more = more
        self._holder = 0
        self._end = -1

    def create(self, resources: Resources) -> None:
        """Have systemd make the unit, then set what systemd doesn't know. Raises `Conflict` if there is one."""
        with Manager(user=self._user) as manager:
            manager.forget(self._unit)
            self._hold()
            try:
                manager.start(self._unit, self._wanted(resources))
            except BaseException:
                self.settle()
                raise
        super().create(resources)

    def apply(self, resources: Resources) -> None:
        """Set limits, also of a running unit."""
        if self._holder == 0:
            with Manager(user=self._user) as manager:
                manager.change(self._unit, properties.limits(resources, old=self._old))
        super().apply(resources)

    def add(self, pid: int) -> None:
        """Move a process here; between an ordinary user's own units only systemd may."""
        if not self._user:
            super().add(pid)
            return
        with Manager(user=True) as manager:
            manager.attach(self._unit, pid)

    @property
    def moved(self) -> bool:
        """Tell that an ordinary user's processes are moved, by systemd."""
        return self._user

    @property
    def joins(self) -> tuple[Write, ...]:
        """List what a task writes to join by itself."""
        return () if self._user else super().joins

    @property
    def unified(self) -> str:
        """Give the directory to be born into; an ordinary user's processes are moved instead."""
        return "" if self._user else super().unified

    def processes(self) -> list[int]:
        """List the processes, without the one that holds the unit."""
        return [pid for pid in super().processes() if pid != self._holder]

    def settle(self) -> None:
        """Let go of the unit: the container's own process is in it now, or never will be."""
        if self._holder:
            os.close(self._end)
            os.waitpid(self._holder, 0)
            self._holder, self._end = 0, -1

    def remove(self) -> None:
        """Stop the unit and remove what is left below hierarchies that systemd doesn't use; idempotent."""
        self.settle()
        try:
            with Manager(user=self._user) as manager:
                manager.stop(self._unit)
        except systemd.NoManager:
            pass  # the processes are gone, and with them the scope
        super().remove()

    @property
    def _old(self) -> bool:
        return self.layout.mode != "v2"

    def _wanted(self, resources: Resources) -> list[Property]:
        found: dict[str, tuple[str, object]] = {
            "Description": ("s", f"container {self.path.rpartition('/')[2]}"),
            "DefaultDependencies": ("b", False),
            **{f"{kind}Accounting": ("b", True) for kind in ("CPU", "Memory", "Tasks")},
            "BlockIOAccounting" if self._old else "IOAccounting": ("b", True),
        }
        above = self.path.split("/")[-2] if "/" in self.path else "-.slice"
        if self._unit.endswith(".slice"):
            found["Wants"] = ("as", [above])
        else:
            found |= {"Slice": ("s", above), "Delegate": ("b", True), "PIDs": ("au", [self._holder])}
        listed = [*properties.limits(resources, old=self._old), *properties.devices(resources.devices), *self._more]
        single = {**found, **{name: value for name, value in listed if value[0] != "a(st)"}}
        return [*single.items(), *(one for one in listed if one[1][0] == "a(st)")]

    def _hold(self) -> None:
        """Start a process that does nothing, and ends with us or when it is let go of."""
        if self._unit.endswith(".slice"):
            return
        waiting, self._end = os.pipe2(os.O_CLOEXEC)
        self._holder = os.fork()
        if self._holder == 0:
            try:
                os.close(self._end)
                os.read(waiting, 1)
            finally:
                os._exit(0)
        os.close(waiting)
