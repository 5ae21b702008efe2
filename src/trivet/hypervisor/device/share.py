"""Directories of the host inside the guest: virtiofs, served by a virtiofsd process per machine."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What virtiofsd serves on `socket`, mounted in the guest by `tag`. Needs a machine with shared memory."""

    tag: str
    socket: str

    def arguments(self) -> list[str]:
        return [
            "-chardev",
            option("socket", id="share", path=self.socket),
            "-device",
            option("vhost-user-fs-pci", chardev="share", tag=self.tag, queue_size=1024),
        ]
