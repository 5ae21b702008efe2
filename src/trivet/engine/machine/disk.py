"""The disks of a machine that exists: one more, a larger one, one less, running or not.

The file is there before the guest sees the disk, and the record says so before it is plugged in: an engine that is
killed in between leaves a disk that the next start has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from trivet.base.error import Conflict, InvalidArgument, NotFound
from trivet.client.schema_machine import DiskLimits, DiskRequest
from trivet.engine.disk import tool
from trivet.engine.disk.model import SECTOR
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.machine import reading, screen
from trivet.engine.machine.create import check_disk
from trivet.engine.snapshot import disk as images
from trivet.hypervisor.qmp import Qmp
from trivet.hypervisor.system import SLOTS
from trivet.isolation import computer, slot
from trivet.isolation.hardware import Disk
from trivet.store.content import explaining_full


class NoSuchDisk(NotFound):
    """A name that no disk of the machine has."""

    def __init__(self, machine: str, name: str) -> None:
        super().__init__(f"machine {machine} has no disk {name}", hint=f"trivet vm disk ls {machine}")


def add(context: Context, record: InstanceRecord, wish: DiskRequest) -> None:
    """Give a machine a further, empty disk. Blocking; the caller holds the instance's lock."""
    parts = computer.hardware(record.plan)
    check_disk(wish.name, wish.size, [*(each.name for each in parts.disks), wish.name])
    port, file = _free(parts.disks), Path(parts.home, f"{wish.name}.qcow2")
    images.create(file, wish.size)
    made = Disk(name=wish.name, path=str(file), size=wish.size, iops=wish.iops, rate=wish.rate, port=port)
    record = _changed(context, record, (*parts.disks, made))
    if _runs(record):
        try:
            with screen.control(record.plan) as qmp:
                plug(qmp, made)
        except BaseException:
            _changed(context, record, parts.disks)
            file.unlink(missing_ok=True)
            raise


def resize(context: Context, record: InstanceRecord, name: str, size: int) -> None:
    """Let a disk grow; the guest sees it at once. Blocking. Raises `InvalidArgument` for less than it has."""
    parts = computer.hardware(record.plan)
    disk = find(record, name)
    size = -(-size // SECTOR) * SECTOR
    if size < disk.size:
        raise InvalidArgument(f"disk {name} of machine {record.name} cannot shrink: it has {disk.size} bytes")
    if _runs(record):
        with screen.control(record.plan) as qmp:
            device = computer.disk(disk).device()
            qmp.execute("block_resize", **{"node-name": device["drive"], "size": size})
    else:
        with explaining_full(disk.path), tool.opened(f"resize disk {name}") as qemu:
            qemu.resize(reading.add(qemu, disk, writable=True), size)
    grown = msgspec.structs.replace(disk, size=size)
    _changed(context, record, tuple(grown if each is disk else each for each in parts.disks))


def limit(context: Context, record: InstanceRecord, name: str, wish: DiskLimits) -> None:
    """Limit a disk's requests and bytes a second, or with 0 let it run free; at once. Blocking."""
    parts, disk = computer.hardware(record.plan), find(record, name)
    changed = msgspec.structs.replace(disk, iops=wish.iops, rate=wish.rate)
    if _runs(record):
        group = computer.disk(changed).limits()
        with screen.control(record.plan) as qmp:
            qmp.execute("qom-set", path=f"/objects/{group['id']}", property="limits", value=group["limits"])
    _changed(context, record, tuple(changed if each is disk else each for each in parts.disks))


def remove(context: Context, record: InstanceRecord, name: str) -> None:
    """Take a disk and its data away. Blocking. Raises `TimedOut` when the guest doesn't let it go."""
    parts, disk = computer.hardware(record.plan), find(record, name)
    if disk is parts.disks[0]:
        raise Conflict(f"disk {name} of machine {record.name} cannot be removed: it is what the machine boots")
    if _runs(record):
        with screen.control(record.plan, slot.PATIENCE) as qmp:
            unplug(qmp, disk, record.name)
    _changed(context, record, tuple(each for each in parts.disks if each is not disk))
    Path(disk.path).unlink(missing_ok=True)


def find(record: InstanceRecord, name: str) -> Disk:
    """Find a disk by its name. Raises `NoSuchDisk`."""
    for disk in computer.hardware(record.plan).disks:
        if disk.name == name:
            return disk
    raise NoSuchDisk(record.name, name)


def plug(qmp: Qmp, planned: Disk) -> None:
    """Plug a disk into its slot; what was made for it goes again when that fails."""
    undo: list[Callable[[], object]] = []
    number = qmp.add_file(planned.path, writable=True)
    undo.append(lambda: qmp.execute("remove-fd", **{"fdset-id": number}))
    disk = computer.disk(planned, descriptor=number)
    try:
        if disk.limited:
            qmp.execute("object-add", **disk.limits())
            undo.append(lambda: qmp.execute("object-del", id=disk.limits()["id"]))
        qmp.execute("blockdev-add", **disk.node())
        undo.append(lambda: qmp.execute("blockdev-del", **{"node-name": disk.name}))
        if disk.limited:
            qmp.execute("blockdev-add", **disk.throttle())
            undo.append(lambda: qmp.execute("blockdev-del", **{"node-name": disk.throttle()["node-name"]}))
        qmp.execute("device_add", **disk.device())
    except BaseException:
        for step in reversed(undo):
            step()
        raise


def unplug(qmp: Qmp, planned: Disk, machine: str) -> None:
    """Ask the guest to let a disk go, and wait until it has; one that is half unplugged already is unplugged."""
    disk = computer.disk(planned)
    device = str(disk.device()["id"])
    if device in slot.devices(qmp):
        slot.let_go(qmp, device, f"disk {disk.name}", machine)
    nodes = [str(disk.throttle()["node-name"])] if disk.limited else []
    there = {str(node["node-name"]) for node in qmp.execute("query-named-block-nodes", flat=True)}
    for name in [*nodes, disk.name]:
        if name in there:
            slot.patiently(partial(qmp.execute, "blockdev-del", **{"node-name": name}))
    if disk.limited:
        qmp.execute("object-del", id=disk.limits()["id"])


def _free(disks: tuple[Disk, ...]) -> str:
    taken = {each.port for each in disks}
    for name in SLOTS.names:
        if name not in taken:
            return name
    raise Conflict(
        f"all {len(SLOTS.names)} slots for further disks are taken", hint="make a larger one: vm disk resize"
    )


def _runs(record: InstanceRecord) -> bool:
    return record.word in (Word.RUNNING, Word.PAUSED)


def _changed(context: Context, record: InstanceRecord, disks: tuple[Disk, ...]) -> InstanceRecord:
    """Record the disks, in the plan and in what a clone would ask for."""
    parts, machine = computer.hardware(record.plan), record.request.machine
    assert machine is not None
    images_ = {wish.name: wish.image for wish in machine.disks}
    wishes = [
        DiskRequest(name=each.name, size=each.size, iops=each.iops, rate=each.rate, image=images_.get(each.name, ""))
        for each in disks[1:]
    ]
    request = msgspec.structs.replace(
        record.request, machine=msgspec.structs.replace(machine, disks=wishes, **_root(disks[0]))
    )
    plan = msgspec.structs.replace(record.plan, hardware=msgspec.structs.replace(parts, disks=disks))
    record = record.change(request=request, plan=plan)
    context.table.update(record.id, record)
    return record


def _root(disk: Disk) -> dict[str, int]:
    return {"disk": disk.size, "iops": disk.iops, "rate": disk.rate}
