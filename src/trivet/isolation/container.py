"""The container level: the host's kernel, shown to the program as if it were alone on it.

Namespaces for mounts, processes, names, queues, network, cgroups and users; a /dev of its own; only the
capabilities, system calls and devices that the plan gives; what /proc and /sys tell of the host masked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from trivet.isolation import plan as plans
from trivet.isolation import specification
from trivet.isolation.driver import Ability
from trivet.isolation.local import Local
from trivet.isolation.plan import Level, Plan, Program
from trivet.oci.runtime import Device, Linux, Process, Resources, Spec


class ContainerDriver(Local):
    """The driver of the container level; also Pausable and Resizable."""

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
