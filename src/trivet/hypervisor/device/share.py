"""Directories of the host inside the guest: virtiofs, served by a virtiofsd process."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What virtiofsd serves on `socket`, mounted in the guest by `tag`. Needs a machine with shared memory.

    QEMU can't begin in a template's state with this device, so that a fork gets it afterwards, in a `slot`.
    `name` tells it from further ones.
    """

    tag: str
    socket: str
    slot: str = ""
    name: str = "share"

    def arguments(self) -> list[str]:
        server = ["-chardev", option("socket", id=self.name, path=self.socket)]
        if self.slot:
            return server
        return [*server, "-device", option("vhost-user-fs-pci", chardev=self.name, tag=self.tag, queue_size=1024)]

    def late(self) -> dict[str, str | int]:
        """Describe the device in the slot, as QMP's device_add takes it."""
        return {
            "driver": "vhost-user-fs-pci",
            "chardev": self.name,
            "tag": self.tag,
            "queue-size": 1024,
            "bus": self.slot,
        }
