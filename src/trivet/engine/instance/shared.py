"""Namespaces an instance is to share with the host or with another instance: --pid, --ipc, --uts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from trivet.base.error import Conflict, InvalidArgument, Unsupported
from trivet.client.schema import InstanceRequest
from trivet.engine.instance.status import Word
from trivet.isolation.owner import borrow
from trivet.isolation.plan import Plan, Shared

if TYPE_CHECKING:
    from trivet.engine.instance.context import Context

KINDS: tuple[Literal["pid", "ipc", "uts"], ...] = ("pid", "ipc", "uts")
OTHER = "container:"


def resolve(request: InstanceRequest) -> tuple[Shared, ...]:
    """Tell what is shared; another's namespace is looked up at the start. Raises `InvalidArgument`, `Unsupported`."""
    found = []
    for kind in KINDS:
        wish: str = getattr(request, kind)
        if wish in ("", "private", "shareable"):
            continue
        if wish != "host" and not (kind == "pid" and wish.startswith(OTHER)):
            raise InvalidArgument(f"cannot share {kind} {wish!r}: host" + (", container:NAME" if kind == "pid" else ""))
        if request.isolation == "vm":
            raise Unsupported(f"cannot share {kind} {wish} with a machine: it has a kernel of its own")
        if request.isolation == "process" and wish != "host":
            raise Unsupported(f"cannot share {kind} {wish} at level process: it has the host's")
        if wish == "host" and request.userns == "private":
            raise InvalidArgument(f"cannot share the host's {kind} with users of one's own", hint="leave --userns out")
        found.append(Shared(kind=kind))
    return tuple(found) if request.isolation == "container" else ()


def of_host(request: InstanceRequest) -> bool:
    """Tell whether something of the host's is shared, which takes the host's users."""
    return "host" in (request.pid, request.ipc, request.uts)


def join(context: Context, request: InstanceRequest, plan: Plan) -> Plan:
    """Look up the process namespace of another instance, whose users are shared, too. Raises `Conflict`."""
    if not request.pid.startswith(OTHER):
        return plan
    record = context.table.find(request.pid.removeprefix(OTHER))
    if record.word not in (Word.RUNNING, Word.PAUSED):
        problem = f"cannot join the processes of instance {record.name}: it is not running"
        raise Conflict(problem, hint=f"trivet start {record.name}")
    if record.request.isolation != "container":
        raise Unsupported(f"cannot join the processes of instance {record.name}: it is not at level container")
    theirs = tuple(
        Shared(kind="pid", path=f"/proc/{record.pid}/ns/pid") if each.kind == "pid" else each for each in plan.shared
    )
    return msgspec.structs.replace(plan, shared=theirs, owner=borrow(record.plan.owner))
