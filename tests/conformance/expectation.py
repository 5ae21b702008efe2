"""Where the levels differ, and why: the contract suite asks this table and nothing else.

Everything that isn't listed must be the same at all three levels.
"""

from __future__ import annotations

from dataclasses import dataclass

from trivet.isolation.plan import Level


@dataclass(frozen=True)
class Expectation:
    """One row: what is expected at each level."""

    process: object
    container: object
    vm: object
    reason: str

    def at(self, level: Level) -> object:
        """Look up a level's column."""
        return {Level.PROCESS: self.process, Level.CONTAINER: self.container, Level.VM: self.vm}[level]


EXPECTATION = {
    "pid of the program": Expectation(
        "host", 1, 1, "a pid namespace starts with the program; a VM's agent keeps one for it too"
    ),
    "own hostname": Expectation(False, True, True, "a process shares the host's name"),
    "own network": Expectation(False, True, True, "a process uses the host's interfaces and ports directly"),
    "sees host processes": Expectation(True, False, False, "a process shows the host's /proc"),
    "own kernel": Expectation(False, False, True, "only a VM boots one"),
    "capabilities dropped": Expectation(False, True, True, "a process keeps the rights of its user on the host"),
    "system calls filtered": Expectation(
        False, True, True, "a process may call everything; inside a VM the filter protects the guest from its program"
    ),
    "devices of the host": Expectation(True, False, False, "a process shows the host's /dev"),
    "kernel files hidden": Expectation(
        False,
        True,
        False,
        "a process shows the host's /proc; a VM's kernel is its own, with nothing of the host to hide",
    ),
    "sysctls set": Expectation(False, True, True, "a process would change the host's"),
    "tmpfs /dev/shm of the plan's size": Expectation(False, True, True, "a process shows the host's /dev"),
    "pause": Expectation(True, True, True, "freezer, or the machine's stop"),
    "resize": Expectation(True, True, True, "a cgroup, or the balloon and the cgroup in the guest"),
    "out of memory is told": Expectation(True, True, True, "from the cgroup, or from the guest agent"),
}
