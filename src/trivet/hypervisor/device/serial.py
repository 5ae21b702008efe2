"""The serial console, written to a file, and virtio-serial ports that carry the agent's frames."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import handed, opened, option


class Console(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's serial console: kernel messages go to the file `log`, opened by QEMU or open as `descriptor`."""

    log: str
    descriptor: int | None = None

    def arguments(self) -> list[str]:
        chardev = option("file", id="console", path=opened(self.log, self.descriptor))
        return [*handed(self.descriptor), "-chardev", chardev, "-serial", "chardev:console"]


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A virtio-serial port; the host's end is a connected stream socket that QEMU inherits as descriptor `fd`."""

    name: str
    fd: int

    def arguments(self) -> list[str]:
        return [
            "-device",
            "virtio-serial-pci",
            "-chardev",
            option("socket", id="agent", fd=self.fd),
            "-device",
            option("virtserialport", chardev="agent", name=self.name),
        ]
