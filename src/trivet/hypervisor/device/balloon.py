"""The balloon: memory the guest doesn't use goes back to the host."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Balloon(msgspec.Struct, frozen=True):
    """A virtio balloon that gives way before the guest runs out of memory, and with `reporting` tells of free pages."""

    reporting: bool = True

    def arguments(self) -> list[str]:
        words = option("virtio-balloon-pci", id="balloon", free_page_reporting=self.reporting, deflate_on_oom=True)
        return ["-device", words]
