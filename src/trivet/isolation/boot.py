"""Why a machine didn't come up, from what it said on its serial console."""

from __future__ import annotations

import re
from pathlib import Path

from trivet.base.error import Corrupt, Internal, TimedOut
from trivet.isolation import machine
from trivet.isolation.plan import Plan
from trivet.launch.operation import Mount, Operation

_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
_AGENT = re.compile(r"trivet-agent: (?!up on )(.*)")
_UP = "trivet-agent: up on "
_TAIL = 3


class MachineSilent(TimedOut):
    """A machine that never answered, twice."""

    def __init__(self, instance: str, seconds: float, console: Path) -> None:
        super().__init__(
            f"the machine of {instance} did not answer within {seconds:.0f} s of its start",
            hint=f"read its console: {console}",
        )


class MachineEnded(Internal):
    """A machine that ended before its program was set up."""

    def __init__(self, instance: str, cause: str, console: Path) -> None:
        super().__init__(f"the machine of {instance} {cause}", hint=f"read its console: {console}")


class DriveDamaged(Corrupt):
    """A root file system whose drive doesn't hold one."""

    def __init__(self, instance: str, path: str, cause: str) -> None:
        super().__init__(f"cannot mount drive {path} of {instance}: {cause}", hint="trivet system check")


class AgentSilent(TimedOut):
    """A guest that runs, but whose agent doesn't answer."""

    def __init__(self, instance: str, seconds: float) -> None:
        super().__init__(
            f"the guest agent of instance {instance} did not answer within {seconds:.0f} s",
            hint=f"trivet restart {instance}",
        )


def console(plan: Plan) -> Path:
    """Name the file of what the guest says on its serial console."""
    return Path(plan.directory, machine.CONSOLE)


def machine_log(plan: Plan) -> str:
    """Read what QEMU itself printed."""
    try:
        return Path(plan.directory, "machine.log").read_text(errors="replace")
    except FileNotFoundError:
        return ""


def came_up(console: Path) -> bool:
    """Tell whether the guest's agent began to work."""
    return _UP in _text(console)


def complaints(words: str) -> list[str]:
    """Pick from what QEMU said what it can have ended for: warnings aren't."""
    return [line for line in words.strip().splitlines() if ": warning: " not in line]


def ended(instance: str, console: Path, words: str = "") -> MachineEnded:
    """Explain the end of a machine: its kernel panicked, its agent gave up, QEMU refused (in `words`), or who knows."""
    text = _text(console)
    if panic := _PANIC.search(text):
        return MachineEnded(instance, f"had a kernel panic: {panic[1].strip()}", console)
    if complaint := _AGENT.search(text):
        return MachineEnded(instance, f"gave up: {complaint[1].strip()}", console)
    last = "\n".join(complaints(words)) or " / ".join(text.strip().splitlines()[-_TAIL:])
    return MachineEnded(instance, f"ended before its program was set up: {last or 'it said nothing'}", console)


def panicked(said: str) -> str:
    """Find in a console's words what a kernel panicked for; "" where it didn't."""
    found = _PANIC.search(said)
    return found[1].strip() if found else ""


def why(console: Path, words: str = "") -> str:
    """Say why a machine ended that had run: its kernel panicked, QEMU gave up (in `words`), or somebody killed it."""
    if panic := _PANIC.search(_text(console)):
        return f"the guest's kernel panicked: {panic[1].strip()}"
    last = complaints(words)
    return f"the machine ended: {last[-1]}" if last else "the machine was killed"


def unmountable(step: Operation | None, drives: dict[str, str], instance: str, cause: str) -> DriveDamaged | None:
    """Explain a root that can't be mounted, if that is what failed; `drives` are files by the guest's device."""
    if isinstance(step, Mount) and step.source in drives:
        return DriveDamaged(instance, drives[step.source], cause)
    return None


def _text(console: Path) -> str:
    try:
        return console.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return ""
