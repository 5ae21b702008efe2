"""What a whole machine has besides disks and networks: firmware, TPM, display, input, watchdog, agent, spare slots."""

from __future__ import annotations

from typing import Literal

import msgspec

from trivet.hypervisor.device.device import handed, opened, option


class Firmware(msgspec.Struct, frozen=True, kw_only=True):
    """UEFI: the program, shared, and the machine's own variables, which if `secure` only the program may write.

    The variables may be open already, as `descriptor`.
    """

    code: str
    variables: str
    secure: bool = False
    descriptor: int | None = None

    def arguments(self) -> list[str]:
        return [
            *handed(self.descriptor),
            "-blockdev",
            option("driver=file", node_name="firmware", filename=self.code, read_only=True),
            "-blockdev",
            option("driver=file", node_name="variables", filename=opened(self.variables, self.descriptor)),
            *(("-global", "driver=cfi.pflash01,property=secure,value=on") if self.secure else ()),
        ]


class Tpm(msgspec.Struct, frozen=True, kw_only=True):
    """A TPM 2.0 that swtpm is, on its control socket."""

    socket: str

    def arguments(self) -> list[str]:
        return [
            *("-chardev", option("socket", id="tpm", path=self.socket)),
            *("-tpmdev", option("emulator", id="tpm0", chardev="tpm")),
            *("-device", option("tpm-crb", tpmdev="tpm0")),
        ]


class Display(msgspec.Struct, frozen=True):
    """A graphics card whose picture is shown by VNC to who is let in by QMP, and a tablet that points where it is told.

    Nobody is at the beginning: QEMU has no place to listen at.
    """

    def arguments(self) -> list[str]:
        return [
            *("-display", "vnc=none"),
            *("-device", "VGA"),
            *("-device", option("qemu-xhci", id="usb")),
            *("-device", option("usb-tablet", bus="usb.0")),
        ]


class Serial(msgspec.Struct, frozen=True):
    """The serial console on QEMU's own terminal: the monitor reads, keeps and passes on what is said there."""

    def arguments(self) -> list[str]:
        return ["-chardev", option("stdio", id="console", signal=False), "-serial", "chardev:console"]


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The port on which the distribution's guest agent listens; QEMU has its socket on the host as a descriptor."""

    descriptor: int

    def arguments(self) -> list[str]:
        return [
            *("-device", option("virtio-serial-pci", id="serial")),
            *("-chardev", option("socket", id="agent", fd=self.descriptor, server=True, wait=False)),
            *("-device", option("virtserialport", chardev="agent", name="org.qemu.guest_agent.0")),
        ]


class Watchdog(msgspec.Struct, frozen=True, kw_only=True):
    """A watchdog that acts when the guest, having once begun to, stops patting it."""

    action: Literal["reset", "poweroff", "pause"]

    def arguments(self) -> list[str]:
        return ["-device", "i6300esb", "-action", f"watchdog={self.action}"]


class Panic(msgspec.Struct, frozen=True):
    """A port by which a guest's kernel says that it panicked; then the machine ends, with exit code 1."""

    def arguments(self) -> list[str]:
        return ["-device", "pvpanic", "-action", "panic=exit-failure"]


class Slots(msgspec.Struct, frozen=True, kw_only=True):
    """Slots into which `kind` is plugged, also while the machine runs; `first` is the number of its first one."""

    count: int
    kind: str = "slot"
    first: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Name the slots."""
        return tuple(f"{self.kind}{number}" for number in range(1, self.count + 1))

    def arguments(self) -> list[str]:
        ports = (
            option("pcie-root-port", id=name, chassis=place) for place, name in enumerate(self.names, start=self.first)
        )
        return [word for port in ports for word in ("-device", port)]


class Netboot(msgspec.Struct, frozen=True, kw_only=True):
    """An interface on a network inside QEMU with DHCP and TFTP and nothing else: of `directory`, `file` first.

    Nothing of it leaves QEMU (`restrict`).
    """

    directory: str
    file: str
    mac: str
    boot: int

    def arguments(self) -> list[str]:
        network = option("user", id="boot", restrict=True, ipv6=False, tftp=self.directory, bootfile=self.file)
        return [
            *("-netdev", network),
            *("-device", option("virtio-net-pci", netdev="boot", mac=self.mac, bootindex=self.boot)),
        ]
