"""What comes to a machine that exists, and goes, besides disks and networks.

That is shared directories, sticks, a watchdog, PCI devices of the host.

A kind of device is a row of `_KINDS`: how it is found, and what adding and removing it changes in what was asked for.
Sticks come and go while the machine runs; the others are there from its start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from trivet.base.error import Conflict, InvalidArgument, NotFound
from trivet.client.schema import InstanceRequest, MountRequest
from trivet.client.schema_machine import DeviceInfo, DeviceRequest, MachineRequest, UsbRequest
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.mount import Mounts, resolve
from trivet.engine.instance.status import Word
from trivet.engine.machine import create, screen
from trivet.hypervisor.qmp import Qmp
from trivet.isolation import computer, sharing, slot
from trivet.isolation.hardware import Usb
from trivet.isolation.plan import Mount, Plan

Kind = Literal["share", "usb", "watchdog", "pci"]


class NoSuchDevice(NotFound):
    """A name that no device of the machine has."""

    def __init__(self, machine: str, name: str) -> None:
        super().__init__(f"machine {machine} has no device {name}", hint=f"trivet vm device ls {machine}")


class NeedsOff(Conflict):
    """A device that can't come or go while the machine runs."""

    def __init__(self, record: InstanceRecord, kind: str) -> None:
        super().__init__(
            f"machine {record.name} runs: a {kind} comes and goes only while it is off",
            hint=f"trivet vm stop {record.name} first",
        )


def listed(plan: Plan) -> list[DeviceInfo]:
    """List a machine's devices."""
    parts = computer.hardware(plan)
    shares = (
        DeviceInfo(
            name=sharing.tag(each),
            kind="share",
            source=each.name or each.source,
            target=each.target,
            read_only=each.read_only,
        )
        for each in plan.mounts
    )
    sticks = (DeviceInfo(name=each.name, kind="usb", source=each.path, read_only=each.read_only) for each in parts.usb)
    dog = [DeviceInfo(name="watchdog", kind="watchdog", source=parts.watchdog)] if parts.watchdog else []
    given = (DeviceInfo(name=f"pci{place}", kind="pci", source=each) for place, each in enumerate(parts.pci, 1))
    return [*shares, *sticks, *dog, *given]


def add(context: Context, record: InstanceRecord, wish: DeviceRequest) -> None:
    """Give a machine a device. Blocking; the caller holds the instance's lock."""
    _KINDS[wish.kind][0](context, record, wish)


def remove(context: Context, record: InstanceRecord, name: str) -> None:
    """Take a device away. Blocking. Raises `NoSuchDevice`."""
    for each in listed(record.plan):
        if each.name == name:
            return _KINDS[each.kind][1](context, record, each)
    raise NoSuchDevice(record.name, name)


def _add_share(context: Context, record: InstanceRecord, wish: DeviceRequest) -> None:
    _refuse_running(record, "shared directory")
    host = wish.source.startswith("/")
    made = MountRequest(
        kind="bind" if host else "volume", source=wish.source, target=wish.target, read_only=wish.read_only
    )
    _remount(context, record, [*record.request.mounts, made])


def _remove_share(context: Context, record: InstanceRecord, found: DeviceInfo) -> None:
    _refuse_running(record, "shared directory")
    gone = next(each.target for each in record.plan.mounts if sharing.tag(each) == found.name)
    left = [each for each in record.request.mounts if sharing.tag(_at(each.target)) != sharing.tag(_at(gone))]
    _remount(context, record, left)


def _at(target: str) -> Mount:
    return Mount(kind="bind", target=target.rstrip("/"))


def _remount(context: Context, record: InstanceRecord, wishes: list[MountRequest]) -> None:
    found: Mounts = resolve(wishes, [], context.volumes, create.no_image)
    try:
        sharing.check(record.name, found.mounts)
    except BaseException:
        create.drop_volumes(context, found)
        raise
    request = msgspec.structs.replace(record.request, mounts=wishes)
    plan = msgspec.structs.replace(record.plan, mounts=found.mounts)
    changed = record.change(request=request, plan=plan, volumes=found.volumes, anonymous_volumes=found.anonymous)
    context.table.update(record.id, changed)


def _add_stick(context: Context, record: InstanceRecord, wish: DeviceRequest) -> None:
    sticks = computer.hardware(record.plan).usb
    taken = {each.name for each in sticks}
    place = next((n for n, name in enumerate(computer.USB_PORTS) if name not in taken), len(computer.USB_PORTS))
    made = create.usb(UsbRequest(path=wish.source, read_only=wish.read_only), place)
    if _runs(record):
        with screen.control(record.plan) as qmp:
            _plug(qmp, made)
    _keep_sticks(context, record, (*sticks, made))


def _remove_stick(context: Context, record: InstanceRecord, found: DeviceInfo) -> None:
    sticks = computer.hardware(record.plan).usb
    if _runs(record):
        with screen.control(record.plan, slot.PATIENCE) as qmp:
            slot.let_go(qmp, f"disk-{found.name}", f"USB stick {found.name}", record.name)
            slot.patiently(lambda: qmp.execute("blockdev-del", **{"node-name": found.name}))
    _keep_sticks(context, record, tuple(each for each in sticks if each.name != found.name))


def _plug(qmp: Qmp, planned: Usb) -> None:
    number = qmp.add_file(planned.path, writable=not planned.read_only)
    stick = computer.stick(planned, number)
    qmp.execute("blockdev-add", **stick.node())
    try:
        qmp.execute("device_add", **stick.device())
    except BaseException:
        qmp.execute("blockdev-del", **{"node-name": stick.name})
        raise


def _keep_sticks(context: Context, record: InstanceRecord, sticks: tuple[Usb, ...]) -> None:
    wishes = [UsbRequest(path=each.path, read_only=each.read_only) for each in sticks]
    _keep(context, record, machine={"usb": wishes}, parts={"usb": sticks})


def _add_watchdog(context: Context, record: InstanceRecord, wish: DeviceRequest) -> None:
    _refuse_running(record, "watchdog")
    if wish.source not in ("reset", "poweroff", "pause"):
        raise InvalidArgument(f"a watchdog can reset, poweroff or pause, not {wish.source!r}")
    _keep(context, record, machine={"watchdog": wish.source}, parts={"watchdog": wish.source})


def _remove_watchdog(context: Context, record: InstanceRecord, found: DeviceInfo) -> None:
    _refuse_running(record, "watchdog")
    _keep(context, record, machine={"watchdog": ""}, parts={"watchdog": ""})


def _add_pci(context: Context, record: InstanceRecord, wish: DeviceRequest) -> None:
    _refuse_running(record, "PCI device")
    wishes = [*computer.hardware(record.plan).pci, wish.source]
    create.check_pci(wishes)
    _keep(context, record, machine={"pci": wishes}, parts={"pci": tuple(wishes)})


def _remove_pci(context: Context, record: InstanceRecord, found: DeviceInfo) -> None:
    _refuse_running(record, "PCI device")
    left = [each for place, each in enumerate(computer.hardware(record.plan).pci, 1) if f"pci{place}" != found.name]
    _keep(context, record, machine={"pci": left}, parts={"pci": tuple(left)})


def _keep(context: Context, record: InstanceRecord, machine: dict[str, object], parts: dict[str, object]) -> None:
    """Record what is there now, in the plan and in what a clone would ask for."""
    asked: MachineRequest = msgspec.structs.replace(record.request.machine or MachineRequest(), **machine)
    request: InstanceRequest = msgspec.structs.replace(record.request, machine=asked)
    hardware = msgspec.structs.replace(computer.hardware(record.plan), **parts)
    plan = msgspec.structs.replace(record.plan, hardware=hardware)
    context.table.update(record.id, record.change(request=request, plan=plan))


def _refuse_running(record: InstanceRecord, kind: str) -> None:
    if _runs(record):
        raise NeedsOff(record, kind)


def _runs(record: InstanceRecord) -> bool:
    return record.word in (Word.RUNNING, Word.PAUSED)


Add = Callable[[Context, InstanceRecord, DeviceRequest], None]
Remove = Callable[[Context, InstanceRecord, DeviceInfo], None]
_KINDS: dict[Kind, tuple[Add, Remove]] = {
    "share": (_add_share, _remove_share),
    "usb": (_add_stick, _remove_stick),
    "watchdog": (_add_watchdog, _remove_watchdog),
    "pci": (_add_pci, _remove_pci),
}
