"""A slot that a device can be put into while the machine runs."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Slot(msgspec.Struct, frozen=True):
    """A PCI Express root port, by its `name`."""

    name: str

    def arguments(self) -> list[str]:
        return ["-device", option("pcie-root-port", id=self.name, chassis=1)]
