"""A new machine from a backup: made as the old one was asked for, its disks from the files of the points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from trivet.client.schema import InstanceRequest
from trivet.client.schema_machine import MachineRequest, RestoreRequest
from trivet.client.schema_network import EndpointRequest
from trivet.engine.disk import tool
from trivet.engine.instance import create
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.machine import point
from trivet.engine.machine.point import Backups
from trivet.isolation import computer
from trivet.store.content import explaining_full


async def restore(context: Context, wish: RestoreRequest) -> str:
    """Make a machine of a backup; its id. Raises `NotFound`, `Corrupt`, and what making a machine does."""
    directory = point.directory_of(wish.directory)
    found = point.read(directory)
    place = point.find(found, wish.point, directory)
    request = request_of(found, place, wish)
    if wish.live and request.machine:
        disks = found.points[place].disks
        kept = {disk: [str(file) for file in point.files(directory, found, place, disk)] for disk in disks}
        request = msgspec.structs.replace(request, machine=msgspec.structs.replace(request.machine, kept=kept))
    fill = None if wish.live else _filling(directory, found, place)
    made = await create.create(context, request, fill=fill)
    return made.id


def request_of(found: Backups, place: int, wish: RestoreRequest) -> InstanceRequest:
    """Ask for the machine that was, under a new name; ports and fixed addresses are the old one's until it is gone."""
    taken, machine = found.points[place], found.request.machine or MachineRequest()
    further = [disk for disk in machine.disks if disk.name in taken.disks]
    usb = [] if wish.isolated else machine.usb  # nothing outside is written to
    disks = [msgspec.structs.replace(disk, size=taken.disks[disk.name], image="") for disk in further]
    networks = [EndpointRequest(network=each.network, priority=each.priority) for each in found.request.networks]
    return msgspec.structs.replace(
        found.request,
        image="",
        name=wish.name,
        hostname=found.request.hostname or found.name.replace("_", "-"),
        networks=[EndpointRequest(network="none")] if wish.isolated else networks,
        mounts=[] if wish.isolated else found.request.mounts,
        ports=[] if wish.isolated else [msgspec.structs.replace(port, host_port=0) for port in found.request.ports],
        machine=msgspec.structs.replace(machine, disk=taken.disks["root"], disks=disks, usb=usb, kept={}, filled=True),
    )


def _filling(directory: Path, found: Backups, place: int) -> Callable[[InstanceRecord], None]:
    def fill(record: InstanceRecord) -> None:
        for disk in computer.hardware(record.plan).disks:
            with explaining_full(disk.path), tool.opened(f"restore disk {disk.name}") as qemu:
                qemu.add({"node-name": "kept", **point.chain(directory, found, place, disk.name, qemu.hand)})
                qemu.copy("kept", Path(disk.path), disk.format)

    return fill
