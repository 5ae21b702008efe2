"""A machine as a record, and the QEMU command line it means: pure, nothing is looked up.

Order matters where the guest counts: drives become vda, vdb, ... as they are listed. What every machine has comes
first, so that a fork's devices are where they were in its template, and its own behind them.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from trivet.hypervisor.device.balloon import Balloon
from trivet.hypervisor.device.board import Slots
from trivet.hypervisor.device.device import Device, option
from trivet.hypervisor.device.drive import Drive, Placeholder
from trivet.hypervisor.device.generation import Generation
from trivet.hypervisor.device.nic import Nic
from trivet.hypervisor.device.rng import Rng
from trivet.hypervisor.device.serial import Console, Port
from trivet.hypervisor.device.share import Share
from trivet.hypervisor.plugging import SLOTS

MEBIBYTE = 1 << 20
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
TRANSLATION_BUFFER = 64  # MiB for translated code under emulation; QEMU's default is a quarter of the host's memory


_FAST = ("cryptomgr.notests", "noreplace-smp", "audit=0", "lsm=landlock,yama", "nowatchdog")
_GROWING = ("memhp_default_state=online_movable", "memory_hotplug.memmap_on_memory=1", "swiotlb=noforce")


class Acceleration(StrEnum):
    """Who runs the guest's instructions."""

    KVM = "kvm"
    EMULATION = "emulation"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The file of the guest's memory, by a path that QEMU opens; what the guest writes goes into it if `shared`."""

    path: str
    shared: bool


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Everything QEMU is told. `memory` is in bytes, rounded up to a MiB; `qmp` is the socket of its monitor, which
    QEMU has as descriptor `control`, if it doesn't make it.

    With `memory_file` the memory is that file. An `incoming` one waits for the state to begin in, and to be resumed;
    that of a `copy` is of a machine that ran, and says nothing of the machine it is for. An `elastic` one shares its
    memory with no other, so that it can give it back. Up to `most_memory` and `most_cpus` can be plugged in later.
    """

    name: str
    program: str
    acceleration: Acceleration
    memory: int
    cpus: int
    kernel: str
    initramfs: str
    console: Console
    qmp: str = ""
    control: int | None = None
    agent: Port | None = None
    drives: tuple[Drive | Placeholder, ...] = ()
    nics: tuple[Nic, ...] = ()
    share: Share | None = None
    balloon: Balloon | None = Balloon()
    generation: Generation | None = None
    slots: Slots | None = None
    memory_file: Memory | None = None
    incoming: bool = False
    copy: bool = False
    elastic: bool = False
    board: str = "q35"
    most_memory: int = 0
    most_cpus: int = 0

    @property
    def devices(self) -> tuple[Device, ...]:
        """List the devices in the order the guest's bus has them."""
        common: list[Device | None] = [self.console, self.agent, Rng(), self.balloon, self.generation, self.slots]
        own: list[Device | None] = [*self.drives, *self.nics, self.share]
        return tuple(device for device in (*common, *own) if device is not None)

    @property
    def late(self) -> tuple[dict[str, str | int] | dict[str, str], ...]:
        """List what is plugged in when the machine has its state, as QMP's device_add takes it."""
        share = (self.share.late(),) if self.share and self.share.slot else ()
        return (*share, *(nic.plugged() for nic in self.nics if nic.late))


def command_line(machine: Machine) -> tuple[str, ...]:
    """Translate a machine to QEMU's argv."""
    return (
        machine.program,
        *("-name", machine.name.replace(",", ",,")),
        *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot"),
        *("-sandbox", SANDBOX),
        *_board(machine),
        *("-smp", f"{machine.cpus},maxcpus={machine.most_cpus}" if _grows(machine) else str(machine.cpus)),
        *_memory(machine),
        *("-kernel", machine.kernel, "-initrd", machine.initramfs, "-append", kernel_command_line(machine)),
        *_monitor(machine),
        *(("-incoming", "defer", "-S") if machine.incoming else ()),
        *(("-global", "migration.send-configuration=off") if machine.copy else ()),
        *(word for device in machine.devices for word in device.arguments()),
    )


def kernel_command_line(machine: Machine) -> str:
    """Spell the guest kernel's parameters.

    A panic ends the machine at once. What an emulated boot would spend time on for nothing is left out: the
    self-tests of ciphers, patching lock prefixes, auditing, and security modules that have no policy here. So is what
    every fork would do again: timers that look whether a processor hangs. Whether the clock is right has to be looked
    at: how fast TSC is an emulated kernel can't tell on a busy host (seen: 227 s wrong after 100 s, with tsc=reliable).
    Memory that is plugged in is used at once, for what can be moved out of it again, and is described in itself; that
    there may be much of it is no reason to keep 64 MiB for devices that reach none of it.
    """
    words = ["console=ttyS0", "loglevel=4", "panic=-1", *_FAST]
    if machine.acceleration is Acceleration.EMULATION:
        words.append("no_timer_check")
    if machine.most_memory:
        words += _GROWING
    if machine.agent is None:
        words.append("probe")  # handed to the agent as an argument, as the kernel doesn't know it
    return " ".join(words)


def _board(machine: Machine) -> list[str]:
    board = option(machine.board, usb=False, vmport=False, smm=False, sata=False, smbus=False)
    if machine.share is not None or machine.memory_file is not None:
        board += ",memory-backend=memory"
    if machine.acceleration is Acceleration.KVM:
        return ["-machine", board, "-accel", "kvm", "-cpu", "host"]
    accelerator = option("tcg", thread="multi", tb_size=TRANSLATION_BUFFER)
    # What an emulated RDRAND says is the process's secret, and would be the same in all that begin as a frozen one.
    return ["-machine", board, "-accel", accelerator, "-cpu", "max,rdrand=off,rdseed=off"]


def _grows(machine: Machine) -> bool:
    return machine.most_cpus > machine.cpus


def _memory(machine: Machine) -> list[str]:
    """Give the guest its memory; a share's server has to see it too, so then it is a shared memfd."""
    whole = f"{-(-machine.memory // MEBIBYTE)}M"
    size = f"{whole},slots={SLOTS},maxmem={machine.most_memory // MEBIBYTE}M" if machine.most_memory else whole
    if (file := machine.memory_file) is not None:
        backend = option("memory-backend-file", id="memory", size=whole, mem_path=file.path, share=file.shared)
        return ["-m", size, "-object", backend]
    if machine.share is None:
        return ["-m", size]
    return ["-m", size, "-object", option("memory-backend-memfd", id="memory", size=whole, share=True)]


def _monitor(machine: Machine) -> list[str]:
    if not machine.qmp:
        return []
    place = {"fd": machine.control} if machine.control is not None else {"path": machine.qmp}
    chardev = option("socket", id="qmp", **place, server=True, wait=False)
    return ["-chardev", chardev, "-mon", "chardev=qmp,mode=control"]
