"""The process level: the image's program on the host's kernel, with the image's root and nothing else of its own.

It is the yardstick for the other two. A mount namespace keeps the image's files and the user's mounts
from showing on the host; a cgroup counts, limits and ends what was started. Everything else, /proc,
/dev, the network and the rights of the program's user, is the host's.
"""

from __future__ import annotations

from trivet.isolation import specification
from trivet.isolation.driver import Ability
from trivet.isolation.local import Local
from trivet.isolation.plan import Level, Plan, Program
from trivet.oci.runtime import Linux, Process, Resources, Spec


class ProcessDriver(Local):
    """The driver of the process level; also Pausable and Resizable."""

    level = Level.PROCESS

    def ability(self) -> Ability:
        """Tell what this level needs and offers here."""
        return Ability(
            level=self.level, root="mount", network="host", acceleration="native", unshared=("mount",), **self.lacks()
        )

    def specification(self, plan: Plan) -> Spec:
        """Describe the instance in the runtime's words."""
        return specification.bare(plan)

    def limits(self, plan: Plan) -> Resources:
        """Describe what of the machine the instance may use."""
        return specification.resources(plan.limits, ())

    def added(self, plan: Plan, program: Program) -> tuple[Process, Linux]:
        """Describe a program that exec adds."""
        return specification.bare_process(program, plan), Linux()

    def joined(self, plan: Plan) -> frozenset[str]:
        """Name the namespaces that the instance doesn't share with the host."""
        return frozenset({"mount"})
