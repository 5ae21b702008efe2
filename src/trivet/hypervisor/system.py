"""A machine with an operating system of its own as a record, and the QEMU command line it means: pure.

Unlike a `Machine` it has firmware that looks for something to boot, a screen, and goes on when its guest reboots.
"""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.balloon import Balloon
from trivet.hypervisor.device.board import Agent, Display, Firmware, Netboot, Panic, Serial, Slots, Tpm, Watchdog
from trivet.hypervisor.device.device import Device, option
from trivet.hypervisor.device.disk import Cdrom, Disk, Stick
from trivet.hypervisor.device.generation import Generation
from trivet.hypervisor.device.nic import Nic
from trivet.hypervisor.device.pci import Pci
from trivet.hypervisor.device.rng import Rng
from trivet.hypervisor.device.share import Share
from trivet.hypervisor.machine import MEBIBYTE, SANDBOX, TRANSLATION_BUFFER, Acceleration

SLOTS = Slots(count=6)
"""Where disks are plugged in."""
SOCKETS = Slots(count=4, kind="socket", first=7)
"""Where the first interfaces are, and further ones are plugged in."""
GIVEN = Slots(count=8, kind="given", first=11)
"""Where devices of the host are, if there are any."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel to start in place of firmware's choice; paths as QEMU sees them."""

    kernel: str
    initrd: str
    parameters: str


class System(msgspec.Struct, frozen=True, kw_only=True):
    """Everything QEMU is told; `memory` in bytes. With `incoming` it goes on from a saved state, or is
    `still` until it is told to go on.

    `control` is the descriptor of the socket on which QEMU listens for QMP.
    """

    name: str
    uuid: str
    program: str
    acceleration: Acceleration
    memory: int
    cpus: int
    control: int
    agent: Agent
    display: Display
    firmware: Firmware | None = None
    tpm: Tpm | None = None
    watchdog: Watchdog | None = None
    disks: tuple[Disk, ...] = ()
    cdroms: tuple[Cdrom, ...] = ()
    nics: tuple[Nic, ...] = ()
    netboot: Netboot | None = None
    start: Start | None = None
    stick: Stick | None = None
    usb: tuple[Stick, ...] = ()
    shares: tuple[Share, ...] = ()
    given: tuple[Pci, ...] = ()
    incoming: str = ""
    still: bool = False

    @property
    def devices(self) -> tuple[Device, ...]:
        """List the devices in the order the guest's bus has them."""
        common: list[Device | None] = [Serial(), self.firmware, self.tpm, self.display, self.agent, Rng(), Balloon()]
        own: list[Device | None] = [
            Generation(),
            Panic(),
            self.watchdog,
            SLOTS,
            SOCKETS,
            *self.disks,
            *self.cdroms,
            self.netboot,
            *self.nics,
            self.stick,
            *self.usb,
            *self.shares,
            *([GIVEN] if self.given else []),
            *self.given,
        ]
        return tuple(device for device in (*common, *own) if device is not None)


def command_line(system: System) -> tuple[str, ...]:
    """Translate a machine to QEMU's argv."""
    return (
        system.program,
        *("-name", system.name.replace(",", ",,"), "-uuid", system.uuid),
        *("-nodefaults", "-no-user-config", "-sandbox", SANDBOX),
        *_board(system),
        *("-smp", str(system.cpus), "-m", _size(system)),
        *_memory(system),
        *("-boot", "strict=on"),
        *("-chardev", option("socket", id="qmp", fd=system.control, server=True, wait=False)),
        *("-mon", "chardev=qmp,mode=control"),
        *_start(system.start),
        *(("-incoming", system.incoming) if system.incoming else ()),
        *(("-S",) if system.still else ()),
        *(word for device in system.devices for word in device.arguments()),
    )


def _board(system: System) -> list[str]:
    firmware = {"pflash0": "firmware", "pflash1": "variables"} if system.firmware else {}
    seen = {"memory_backend": "memory"} if system.shares else {}
    board = option("q35", vmport=False, smm=system.firmware is not None, **firmware, **seen)
    if system.acceleration is Acceleration.KVM:
        return ["-machine", board, "-accel", "kvm", "-cpu", "host"]
    return ["-machine", board, "-accel", option("tcg", thread="multi", tb_size=TRANSLATION_BUFFER * 4), "-cpu", "max"]


def _memory(system: System) -> list[str]:
    """Let virtiofsd see the guest's memory, where there is one."""
    if not system.shares:
        return []
    return ["-object", option("memory-backend-memfd", id="memory", size=_size(system), share=True)]


def _size(system: System) -> str:
    return f"{-(-system.memory // MEBIBYTE)}M"


def _start(start: Start | None) -> list[str]:
    if start is None:
        return []
    initrd = ["-initrd", start.initrd] if start.initrd else []
    return ["-kernel", start.kernel, *initrd, "-append", start.parameters]
