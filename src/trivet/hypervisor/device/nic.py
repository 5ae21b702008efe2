"""Network interfaces: virtio-net on a tap device that the engine has put on a bridge."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """An interface; the guest finds it by its `mac`."""

    name: str
    tap: str
    mac: str

    def arguments(self) -> list[str]:
        # The boot ROM would cost a guest that never boots from the network some milliseconds and memory.
        return [
            "-netdev",
            option("tap", id=self.name, ifname=self.tap, script="no", downscript="no"),
            "-device",
            option("virtio-net-pci", netdev=self.name, mac=self.mac, romfile=""),
        ]
