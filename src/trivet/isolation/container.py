"""The container level: the host's kernel, shown to the program as if it were alone on it.

Namespaces for mounts, processes, names, queues, network, cgroups and users; a /dev of its own; only the
capabilities, system calls and devices that the plan gives; what /proc and /sys tell of the host masked.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from trivet.isolation import plan as plans
from trivet.isolation import revival, specification
from trivet.isolation.driver import Ability, Saved
from trivet.isolation.local import Local, NotRunning, group
from trivet.isolation.plan import Level, Plan, Program
from trivet.launch.channel import Channel
from trivet.oci.runtime import Device, Linux, Process, Resources, Spec


class ContainerDriver(Local):
    """The driver of the container level; also Pausable, Resizable and Saving."""

    level = Level.CONTAINER

    def ability(self) -> Ability:
        """Tell what this level needs and offers here."""
        unshared = (*specification.NAMESPACES, "network", "user")
        return Ability(
            level=self.level, root="mount", network="netns", acceleration="native", unshared=unshared, **self.lacks()
        )

    def specification(self, plan: Plan) -> Spec:
        """Describe the instance in the runtime's words."""
        devices = tuple(_host_devices()) if plan.security.privileged else ()
        devices += () if plan.owner else tuple(_given(each) for each in plan.devices)
        return specification.contained(plan, devices=devices)

    def limits(self, plan: Plan) -> Resources:
        """Describe what of the machine the instance may use."""
        return specification.allowed(plan)

    def added(self, plan: Plan, program: Program) -> tuple[Process, Linux]:
        """Describe a program that exec adds."""
        filtering = specification.filtering(plan.security, privileged=program.privileged)
        return specification.process(program, plan.security, plan), Linux(seccomp=filtering)

    def check_saving(self, plan: Plan) -> None:
        """Refuse what CRIU can't save, or where it isn't."""
        revival.check(plan)

    def save(self, plan: Plan, place: Path, copy: Callable[[], None], *, go_on: bool) -> float:
        """Save processes and root into a new directory; seconds they stood still."""
        pid = self._running(plan, "running").pid
        return revival.save(plan, self.specification(plan), pid, group(plan), place, copy, go_on=go_on)

    def end(self, plan: Plan) -> None:
        """Kill it as it stands, and let it be gone."""
        with suppress(NotRunning):
            self.signal(plan, signal.SIGKILL)
            group(plan).freeze(False)

    def saved(self, place: Path) -> AbstractContextManager[Saved]:
        """Load what was saved."""
        return revival.opened(place)

    def restore(self, plan: Plan, saved: Saved, was: Plan) -> Channel:
        """Begin as what was saved."""
        return revival.thaw(plan, self.specification(plan), group(plan), saved, was)

    def joined(self, plan: Plan) -> frozenset[str]:
        """Name the namespaces that the instance doesn't share with the host."""
        linux = self.specification(plan).linux or Linux()
        return frozenset(namespace.type for namespace in linux.namespaces)


def _given(device: plans.Device) -> Device:
    return Device(
        type=device.kind,
        path=device.path,
        major=device.major,
        minor=device.minor,
        file_mode=device.mode,
        uid=device.uid,
        gid=device.gid,
    )


def _host_devices() -> Iterator[Device]:
    """List the host's device nodes, for a privileged container; /dev/pts and the like are its own."""
    for path, directories, names in os.walk("/dev"):
        directories[:] = [name for name in sorted(directories) if name not in ("pts", "shm", "mqueue")]
        for name in sorted(names):
            device = _device(Path(path, name))
            if device is not None:
                yield device


def _device(path: Path) -> Device | None:
    status = path.lstat()
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return Device(
            type="c" if stat.S_ISCHR(status.st_mode) else "b",
            path=str(path),
            major=os.major(status.st_rdev),
            minor=os.minor(status.st_rdev),
            file_mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
        )
    return None
