"""The balloon: memory the guest doesn't use goes back to the host."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Balloon(msgspec.Struct, frozen=True):
    """A virtio balloon that also reports free pages and gives way before the guest runs out of memory."""

    def arguments(self) -> list[str]:
        return ["-device", option("virtio-balloon-pci", free_page_reporting=True, deflate_on_oom=True)]
