"""Network interfaces: virtio-net on a tap device that the engine has put on a bridge, or on an open macvtap."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option

PREFIX = "nic-"


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """An interface; the guest finds it by its `mac`. With a `descriptor` that is the device, opened.

    One with a place in the `boot` order can be booted from. One with a `slot` is there; `late`, it is plugged in when
    the machine has its state. A `movable` one has a name, by which it can be unplugged.
    """

    name: str
    tap: str
    mac: str
    descriptor: int | None = None
    boot: int = 0
    slot: str = ""
    late: bool = False
    movable: bool = False

    @property
    def device(self) -> str:
        """Name the device of a movable one."""
        return PREFIX + self.name

    def arguments(self) -> list[str]:
        order: dict[str, str | int] = {"bootindex": self.boot} if self.boot else {"romfile": ""}
        # The boot ROM would cost a guest that never boots from the network some milliseconds and memory.
        host = {"fd": self.descriptor} if self.descriptor else {"ifname": self.tap, "script": "no", "downscript": "no"}
        device = ["-device", option("virtio-net-pci", netdev=self.name, mac=self.mac, **order, **self._place)]
        return ["-netdev", option("tap", id=self.name, **host), *([] if self.late else device)]

    def plugged(self) -> dict[str, str]:
        """Describe the device in the slot, as QMP's device_add takes it."""
        return {"driver": "virtio-net-pci", "netdev": self.name, "mac": self.mac, "romfile": "", **self._place}

    @property
    def _place(self) -> dict[str, str]:
        return ({"bus": self.slot} if self.slot else {}) | ({"id": self.device} if self.movable else {})
