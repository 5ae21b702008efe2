"""The VM generation id: a new one tells the guest's kernel that it is a copy (virt/coco, Linux 5.18: it reseeds)."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Generation(msgspec.Struct, frozen=True):
    """A generation id that every start of QEMU makes anew."""

    def arguments(self) -> list[str]:
        return ["-device", option("vmgenid", guid="auto")]
