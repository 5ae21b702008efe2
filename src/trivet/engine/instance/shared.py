"""Namespaces an instance is to share with the host or with another instance: --pid, --ipc, --uts, --cgroupns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from trivet.base.error import Conflict, InvalidArgument, Unsupported
from trivet.client.schema import InstanceRequest
from trivet.engine.instance.status import Word
from trivet.isolation.owner import borrow
from trivet.isolation.plan import Plan, Shared

if TYPE_CHECKING:
    from trivet.engine.instance.context import Context
    from trivet.engine.instance.model import InstanceRecord

FIELDS: dict[Literal["pid", "ipc", "uts", "cgroup"], str] = {
    # a namespace, and the field of a request that says whose
    "pid": "pid",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroupns",
}
JOINED: tuple[Literal["pid", "ipc"], ...] = ("pid", "ipc")
OTHER = "container:"
OWN = ("", "private")
WORDS = {
    "pid": "host, container:NAME",
    "ipc": "private, shareable, none, host, container:NAME",
    "uts": "host",
    "cgroup": "host",
}


class NotShareable(Conflict):
    """An instance whose shared memory is its own."""

    def __init__(self, name: str, key: str) -> None:
        super().__init__(
            f"cannot join the shared memory of instance {name}: it is not shareable",
            hint=f"run {name} with --ipc shareable",
        )
        self.key = key


class NotRunning(Conflict):
    """An instance whose namespace isn't there to be joined."""

    def __init__(self, kind: str, name: str, key: str) -> None:
        super().__init__(
            f"cannot join the {THINGS[kind]} of instance {name}: it is not running", hint=f"trivet start {name}"
        )
        self.key, self.what = key, kind


THINGS = {"pid": "processes", "ipc": "shared memory"}


def resolve(request: InstanceRequest) -> tuple[Shared, ...]:
    """Tell what is shared; another's namespace is looked up at the start. Raises `InvalidArgument`, `Unsupported`."""
    found = []
    for kind, field in FIELDS.items():
        wish: str = getattr(request, field)
        if wish in OWN or (kind == "ipc" and wish in ("shareable", "none") and request.isolation != "process"):
            continue
        if wish != "host" and not (kind in JOINED and wish.startswith(OTHER)):
            raise InvalidArgument(f"cannot share {kind} {wish!r}: {WORDS[kind]}")
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
    return any(getattr(request, field) == "host" for field in FIELDS.values())


def named(context: Context, request: InstanceRequest) -> InstanceRequest:
    """Replace names of others by their ids, which last. Raises `NotFound`."""
    wishes = {kind: getattr(request, kind) for kind in JOINED}
    ids = {
        kind: f"{OTHER}{context.table.find(wish.removeprefix(OTHER)).id}"
        for kind, wish in wishes.items()
        if wish.startswith(OTHER)
    }
    return msgspec.structs.replace(request, **ids)


def memory(request: InstanceRequest, directory: Path) -> str:
    """Tell where shared memory is kept for others to share; "" where it isn't."""
    return str(directory / "shm") if request.isolation == "container" and request.ipc == "shareable" else ""


def join(context: Context, request: InstanceRequest, plan: Plan) -> Plan:
    """Look up namespaces of other instances, whose users are shared, too. Raises `Conflict`."""
    owners = []
    for kind in JOINED:
        wish: str = getattr(request, kind)
        if not wish.startswith(OTHER):
            continue
        record = _donor(context, kind, wish.removeprefix(OTHER))
        owners.append(borrow(record.plan.owner))
        hosts = any(each.kind == kind and not each.path for each in record.plan.shared)
        path = "" if hosts else f"/proc/{record.pid}/ns/{kind}"
        theirs = tuple(Shared(kind=kind, path=path) if each.kind == kind else each for each in plan.shared)
        more = {"memory": record.plan.memory} if kind == "ipc" else {}
        plan = msgspec.structs.replace(plan, shared=theirs, owner=owners[-1], **more)
    if len(owners) == 2 and owners[0] != owners[1]:
        raise Conflict("cannot join the processes of one instance and the shared memory of one with other users")
    return plan


def _donor(context: Context, kind: str, reference: str) -> InstanceRecord:
    record = context.table.find(reference)
    if record.word not in (Word.RUNNING, Word.PAUSED):
        raise NotRunning(kind, record.name, record.id)
    if record.request.isolation != "container":
        raise Unsupported(f"cannot join the {THINGS[kind]} of instance {record.name}: it is not at level container")
    if kind == "ipc" and not record.plan.memory and record.request.ipc != "host":
        raise NotShareable(record.name, record.id)
    return record
