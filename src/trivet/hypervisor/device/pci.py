"""Devices of the host, by VFIO."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Pci(msgspec.Struct, frozen=True, kw_only=True):
    """The host's PCI device at `address`, in a `slot`. QEMU looks for it in /sys, and opens its group in /dev/vfio."""

    address: str
    slot: str

    def arguments(self) -> list[str]:
        return ["-device", option("vfio-pci", host=self.address, bus=self.slot)]
