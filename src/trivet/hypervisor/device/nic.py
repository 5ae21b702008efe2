"""Network interfaces: virtio-net on a tap device that the engine has put on a bridge, or on an open macvtap."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """An interface; the guest finds it by its `mac`. With a `descriptor` that is the device, opened.

    One with a place in the `boot` order can be booted from.
    """

    name: str
    tap: str
    mac: str
    descriptor: int | None = None
    boot: int = 0

    def arguments(self) -> list[str]:
        order: dict[str, str | int] = {"bootindex": self.boot} if self.boot else {"romfile": ""}
        # The boot ROM would cost a guest that never boots from the network some milliseconds and memory.
        host = {"fd": self.descriptor} if self.descriptor else {"ifname": self.tap, "script": "no", "downscript": "no"}
        return [
            "-netdev",
            option("tap", id=self.name, **host),
            "-device",
            option("virtio-net-pci", netdev=self.name, mac=self.mac, **order),
        ]
