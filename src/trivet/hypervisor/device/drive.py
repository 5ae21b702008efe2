"""Drives: raw image files on virtio-blk, in the order the guest counts them (vda, vdb, ...)."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Drive(msgspec.Struct, frozen=True, kw_only=True):
    """A raw image file.

    `discard` hands the guest's TRIM down to the file. A read-only drive may be shared by any number of machines;
    a writable one is locked by QEMU.
    """

    name: str
    path: str
    read_only: bool = False
    discard: bool = True

    def arguments(self) -> list[str]:
        backend = option(
            "file",
            node_name=self.name,
            filename=self.path,
            read_only=self.read_only,
            discard="unmap" if self.discard and not self.read_only else "ignore",
        )
        return ["-blockdev", f"driver={backend}", "-device", option("virtio-blk-pci", drive=self.name)]
