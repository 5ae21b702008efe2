"""What a copy of a machine has to be told: in what it differs from the one whose memory it begins with.

Its kernel and its program have the original's names and addresses. They are changed where the program sees them, in
its namespaces, while it stands still and its interfaces are down; what the program has read already it keeps.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec

from trivet.isolation import guest, specification
from trivet.isolation.plan import Attachment, Plan, Program
from trivet.launch.operation import Bind, DropAddress, File, Hostname, LinkAddress, Operation, Root, Spawn
from trivet.runtime.mount import READ_ONLY

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_SCRATCH = "/dev/.trivet-{}"  # a file system in memory, the program's own


def changes(plan: Plan, was: Plan) -> tuple[Operation, ...]:
    """Compute what the agent does beside the program in a copy of `was`; nothing where it is the same instance."""
    steps = [*_links(plan, was), *_names(plan, was), *(_identity(plan) if plan.id != was.id else ())]
    if not steps:
        return ()
    entered = [free(step) for step in guest.enter(plan, Program(argv=("/",), builtin="nothing"))]
    inside = entered.index(Root("/")) + 1
    return (*entered[:inside], *steps, *entered[inside:])


def free(step: Operation) -> Operation:
    """Keep out of the program's control group, which stands still."""
    return msgspec.structs.replace(step, cgroup="") if isinstance(step, Spawn) else step


def taps(plan: Plan) -> tuple[Attachment, ...]:
    """List the interfaces of a machine, in the order it has them."""
    return tuple(attachment for attachment in plan.attachments if attachment.kind == "tap")


def _links(plan: Plan, was: Plan) -> list[Operation]:
    steps: list[Operation] = []
    for now, before in zip(taps(plan), taps(was), strict=True):
        if (now.mac, now.addresses, now.name) == (before.mac, before.addresses, before.name):
            continue
        steps += [
            LinkAddress(before.mac, now.mac),
            *(DropAddress(now.mac, address.address) for address in before.addresses),
            *specification.interface(before.name, now),
        ]
    return steps


def _names(plan: Plan, was: Plan) -> list[Operation]:
    known = {file.target: file.content for file in was.files}
    steps: list[Operation] = [] if plan.hostname == was.hostname else [Hostname(plan.hostname)]
    for each in plan.files:
        if known.get(each.target) != each.content:
            steps += file(plan, each.target, each.content, each.mode)
    return steps


def _identity(plan: Plan) -> list[Operation]:
    """Give it ids of its own: of the installation, and of the boot, which the kernel says once and for all."""
    return [
        *file(plan, guest.MACHINE_ID, guest.installation(plan), 0o444),
        *_shown(_BOOT_ID, f"{uuid.uuid4()}\n".encode(), 0o444),
    ]


def file(plan: Plan, target: str, content: bytes, mode: int) -> list[Operation]:
    """Compute how a file is written, or where nothing can be written, shown."""
    return _shown(target, content, mode) if plan.root.read_only else [File(target, content, mode)]


def _shown(target: str, content: bytes, mode: int) -> list[Operation]:
    """Show other content where nothing can be written."""
    scratch = _SCRATCH.format(Path(target).name)
    return [File(scratch, content, mode), Bind(scratch, target, recursive=0, attributes=READ_ONLY, make=0)]
