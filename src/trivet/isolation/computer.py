"""From the plan of a machine with an operating system of its own to QEMU's record and the launcher's steps.

launcher   Monitor · Spawn (own mount and pid namespace, a terminal that is the serial console)
child      cgroups · directories shared · files opened · the cell around QEMU and swtpm (housing.py) · Wait · QEMU
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from trivet.base.error import InvalidArgument
from trivet.hypervisor.device.board import Agent, Display, Firmware, Netboot, Tpm, Watchdog
from trivet.hypervisor.device.disk import Cdrom, Disk, Kept, Stick
from trivet.hypervisor.device.nic import Nic
from trivet.hypervisor.device.pci import Pci
from trivet.hypervisor.machine import MEBIBYTE, Acceleration
from trivet.hypervisor.system import GIVEN, SOCKETS, Start, System, command_line
from trivet.isolation import housing, sharing
from trivet.isolation.elastic import OVERHEAD
from trivet.isolation.hardware import Disk as PlannedDisk
from trivet.isolation.hardware import Hardware, Usb
from trivet.isolation.machine import (
    DEFAULT_CPUS,
    STATE_DESCRIPTOR,
    TAP_DESCRIPTOR,
    Host,
    limited,
)
from trivet.isolation.plan import Attachment, Plan
from trivet.kernel.cgroup_record import Resources, Write
from trivet.launch.operation import (
    Exec,
    Give,
    Monitor,
    Operation,
    Propagation,
    Spawn,
    Wait,
    WriteFile,
)
from trivet.runtime.mount import PROPAGATION
from trivet.runtime.namespace import FLAGS

DEFAULT_MEMORY = 1024 * MEBIBYTE
QMP, AGENT, SCREEN = "qmp.sock", "agent.sock", "screen.sock"
SEED, STICK, INITRD = "seed.img", "stick.img", "initrd"
VARIABLES = "variables.fd"
ROWS, COLUMNS = 25, 80
USB_PORTS = {"usb1": 3, "usb2": 4}  # of four: the tablet has the first, an installer's answers the next one


def hardware(plan: Plan) -> Hardware:
    """Give the part of the plan that only such a machine has."""
    if plan.hardware is None:
        raise InvalidArgument(f"instance {plan.name} is no machine of its own")
    return plan.hardware


def memory(plan: Plan) -> int:
    """Choose the guest's memory."""
    return plan.limits.memory or DEFAULT_MEMORY


def resources(plan: Plan) -> Resources:
    """Limit QEMU: its guest's memory and what comes on top, and the CPU time that was promised."""
    return limited(plan, memory(plan) + 2 * OVERHEAD)


def disk(
    planned: PlannedDisk,
    boot: int = 0,
    descriptor: int | None = None,
    base: int | None = None,
    kept: Sequence[int] = (),
) -> Disk:
    """Translate a disk, at its place in the boot order; opened, and what is below it, if there are descriptors."""
    numbers: Sequence[int | None] = kept or [None] * len(planned.kept)
    return Disk(
        name=planned.name,
        path=planned.path,
        format=planned.format,
        base=planned.base,
        base_format=planned.base_format,
        iops=planned.iops,
        rate=planned.rate,
        boot=boot,
        port=planned.port,
        descriptor=descriptor,
        base_descriptor=base if planned.base else None,
        adjustable=True,
        kept=tuple(Kept(path=path, descriptor=number) for path, number in zip(planned.kept, numbers, strict=True)),
    )


def system(plan: Plan, host: Host) -> System:
    """Describe the machine."""
    parts, home = hardware(plan), plan.directory
    order = {name: 10 * (place + 1) for place, name in enumerate(parts.boot)}
    taps = [attachment for attachment in plan.attachments if attachment.kind != "none"]
    first = order.get("network", 0) + (1 if parts.netboot else 0)
    return System(
        name=plan.name or plan.id,
        uuid=uuid(plan),
        program=host.qemu,
        acceleration=host.acceleration,
        memory=memory(plan),
        cpus=cpus(plan, host),
        control=housing.CONTROL,
        agent=Agent(descriptor=housing.AGENT),
        display=Display(),
        firmware=_firmware(parts, host),
        tpm=Tpm(socket=housing.TPM) if parts.tpm else None,
        watchdog=Watchdog(action=parts.watchdog) if parts.watchdog else None,
        disks=(*_disks(parts, order.get("disk", 0)), *_seed(plan)),
        cdroms=tuple(
            Cdrom(
                number=number,
                path=each.path,
                boot=_nth(order.get("cdrom", 0), number),
                descriptor=housing.CDROMS + number,
            )
            for number, each in enumerate(parts.cdroms)
        ),
        nics=tuple(nic(use, number, _nth(first, number)) for number, use in enumerate(taps)),
        incoming=f"fd:{STATE_DESCRIPTOR}" if host.begin else "",
        still=host.still,
        netboot=_netboot(parts, plan.id, order.get("network", 0)),
        start=_start(plan),
        usb=tuple(stick(each, housing.USB + number) for number, each in enumerate(parts.usb)),
        shares=sharing.shares(plan),
        given=tuple(Pci(address=each.address, slot=slot) for each, slot in zip(host.given, GIVEN.names, strict=False)),
        stick=Stick(path=f"{home}/{STICK}", descriptor=housing.STICK) if parts.answers else None,
    )


def stick(planned: Usb, descriptor: int) -> Stick:
    """Translate a USB stick, opened; its name says the port."""
    return Stick(
        name=planned.name,
        path=planned.path,
        read_only=planned.read_only,
        port=USB_PORTS[planned.name],
        descriptor=descriptor,
    )


def nic(use: Attachment, number: int, boot: int = 0) -> Nic:
    """Translate an interface."""
    slot = SOCKETS.names[number] if number < len(SOCKETS.names) else ""
    return Nic(
        name=f"net{number}",
        tap=use.device,
        mac=use.mac,
        boot=boot,
        descriptor=TAP_DESCRIPTOR + number,
        slot=slot,
        movable=bool(slot),
    )


def cpus(plan: Plan, host: Host | None = None) -> int:
    """Choose the number of processors."""
    default = DEFAULT_CPUS[host.acceleration if host else Acceleration.EMULATION]
    return math.ceil(plan.limits.cpus) or min(default, host.cpus if host else default)


def uuid(plan: Plan) -> str:
    """Give the machine the id that its firmware tells, from the instance's."""
    digits = plan.id[:32].ljust(32, "0")
    return "-".join((digits[:8], digits[8:12], f"4{digits[13:16]}", f"8{digits[17:20]}", digits[20:32]))


def launch(plan: Plan, host: Host, joins: tuple[Write, ...], unified: str, reap: tuple[str, ...]) -> list[Operation]:
    """Compute what the launcher does."""
    parts, made = hardware(plan), system(plan, host)
    return [
        Monitor(
            directory=plan.directory,
            log=plan.log.path,
            log_size=plan.log.size,
            log_files=plan.log.files,
            reap=reap,
        ),
        Spawn(flags=FLAGS["mount"] | FLAGS["pid"], terminal=1, rows=ROWS, columns=COLUMNS, stdin=1, cgroup=unified),
        *(WriteFile(write.path, write.value.encode()) for write in joins),
        Propagation("/", PROPAGATION["rslave"]),
        *sharing.serve(plan, host.virtiofsd),
        *([Give(host.begin, 0, STATE_DESCRIPTOR)] if host.begin else []),
        *housing.gifts(plan, made, (f"{plan.directory}/{QMP}", f"{plan.directory}/{AGENT}")),
        *housing.walls(plan, parts, host, memory(plan)),
        Wait(),
        Exec(command_line(made), ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)),
    ]


def _disks(parts: Hardware, first: int) -> list[Disk]:
    found, kept = [], housing.KEPT
    for n, each in enumerate(parts.disks):
        numbers = range(kept, kept + len(each.kept))
        found.append(disk(each, _nth(first, n), housing.FILES + 2 * n, housing.FILES + 2 * n + 1, numbers))
        kept = numbers.stop
    return found


def _seed(plan: Plan) -> list[Disk]:
    if hardware(plan).seed is None:
        return []
    return [Disk(name="seed", path=f"{plan.directory}/{SEED}", format="raw", read_only=True, descriptor=housing.SEED)]


def _start(plan: Plan) -> Start | None:
    parts = hardware(plan)
    if parts.direct is None:
        return None
    initrd = housing.INITRD if parts.direct.initrd else ""
    return Start(kernel=housing.KERNEL, initrd=initrd, parameters=parts.direct.parameters)


def _netboot(parts: Hardware, key: str, boot: int) -> Netboot | None:
    if parts.netboot is None:
        return None
    digits = hashlib.sha256(key.encode()).hexdigest()
    mac = ":".join(("02", *(digits[at : at + 2] for at in range(0, 10, 2))))
    return Netboot(directory=housing.NETBOOT, file=parts.netboot.file, mac=mac, boot=boot)


def _nth(first: int, number: int) -> int:
    return first and first + number


def _firmware(parts: Hardware, host: Host) -> Firmware | None:
    if parts.firmware != "uefi":
        return None
    variables = f"{parts.home}/{VARIABLES}"
    return Firmware(code=host.firmware, variables=variables, secure=parts.secure_boot, descriptor=housing.VARIABLES)
