"""Disks and CD drives of machines with an operating system of their own, as QEMU's block graph.

Every node names its driver, and what is below a thin image is said, not read from its header: QEMU guesses nothing
from what a guest could write. The same records describe a disk on the command line and one that is plugged in later.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from trivet.hypervisor.device.device import handed, opened, option


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A qcow2 file of a backup."""

    path: str
    descriptor: int | None = None


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """An image file on virtio-blk; `port` is the slot it is plugged into later, `boot` its place in the boot order.

    With descriptors it is open already, and so is its base. An `adjustable` one can be limited while the machine runs.
    """

    name: str
    path: str
    format: Literal["raw", "qcow2"]
    base: str = ""
    base_format: Literal["raw", "qcow2"] = "raw"
    read_only: bool = False
    iops: int = 0
    rate: int = 0
    boot: int = 0
    port: str = ""
    descriptor: int | None = None
    base_descriptor: int | None = None
    adjustable: bool = False
    kept: tuple[Kept, ...] = ()

    @property
    def limited(self) -> bool:
        """Whether a throttle stands before it."""
        return self.adjustable or bool(self.iops or self.rate)

    def node(self) -> dict[str, Any]:
        """Describe the image and what is below it."""
        found: dict[str, Any] = {
            "driver": self.format,
            "node-name": self.name,
            "read-only": self.read_only,
            "discard": "unmap",
            "file": _file(opened(self.path, self.descriptor), f"{self.name}-file", read_only=self.read_only),
        }
        if self.format == "qcow2":
            found["backing"] = self._kept() if self.kept else self._below() if self.base else None
        return found

    def limits(self) -> dict[str, Any]:
        """Describe the group that holds the limits."""
        limits = {"iops-total": self.iops, "bps-total": self.rate}  # 0 is none
        return {"qom-type": "throttle-group", "id": self._group, "limits": limits}

    def throttle(self) -> dict[str, Any]:
        """Describe the node that applies them."""
        return {
            "driver": "throttle",
            "node-name": f"{self.name}-throttle",
            "throttle-group": self._group,
            "file": self.name,
        }

    def device(self) -> dict[str, str | int]:
        """Describe the device in front of the image."""
        found: dict[str, str | int] = {
            "driver": "virtio-blk-pci",
            "id": f"disk-{self.name}",
            "drive": f"{self.name}-throttle" if self.limited else self.name,
            "serial": self.name[:20],
        }
        return found | ({"bootindex": self.boot} if self.boot else {}) | ({"bus": self.port} if self.port else {})

    def arguments(self) -> list[str]:
        words = [*handed(self.descriptor), *handed(self.base_descriptor)]
        words += [word for each in self.kept for word in handed(each.descriptor)]
        words += ["-object", _json(self.limits())] if self.limited else []
        words += ["-blockdev", _json(self.node())]
        words += ["-blockdev", _json(self.throttle())] if self.limited else []
        return [*words, "-device", _json(self.device())]

    @property
    def _group(self) -> str:
        return f"limit-{self.name}"

    def _kept(self) -> dict[str, Any] | None:
        node: dict[str, Any] | None = None
        for number, each in reversed(list(enumerate(self.kept))):
            name = f"{self.name}-kept{number}"
            file = _file(opened(each.path, each.descriptor), f"{name}-file", read_only=True)
            node = {"driver": "qcow2", "node-name": name, "read-only": True, "file": file, "backing": node}
        return node

    def _below(self) -> dict[str, Any]:
        base: dict[str, Any] = {
            "driver": self.base_format,
            "node-name": f"{self.name}-base",
            "read-only": True,
            "file": _file(opened(self.base, self.base_descriptor), f"{self.name}-base-file", read_only=True),
        }
        return base | ({"backing": None} if self.base_format == "qcow2" else {})


class Cdrom(msgspec.Struct, frozen=True, kw_only=True):
    """An ISO image in SATA drive `number`."""

    number: int
    path: str
    boot: int = 0
    descriptor: int | None = None

    def arguments(self) -> list[str]:
        name = f"cdrom{self.number}"
        node = {
            "driver": "raw",
            "node-name": name,
            "read-only": True,
            "file": _file(opened(self.path, self.descriptor), f"{name}-file", read_only=True),
        }
        order = {"bootindex": self.boot} if self.boot else {}
        device = option("ide-cd", id=f"disk-{name}", drive=name, bus=f"ide.{self.number}", **order)
        return [*handed(self.descriptor), "-blockdev", _json(node), "-device", device]


class Stick(msgspec.Struct, frozen=True, kw_only=True):
    """A raw image as a USB stick; `name` tells it from further ones, `port` is where it is plugged in, 0 anywhere."""

    path: str
    name: str = "stick"
    read_only: bool = True
    port: int = 0
    descriptor: int | None = None

    def node(self) -> dict[str, Any]:
        """Describe the image."""
        path = opened(self.path, self.descriptor)
        return {
            "driver": "raw",
            "node-name": self.name,
            "read-only": self.read_only,
            "file": _file(path, f"{self.name}-file", read_only=self.read_only),
        }

    def device(self) -> dict[str, str | bool]:
        """Describe the device in front of the image."""
        found: dict[str, str | bool] = {
            "driver": "usb-storage",
            "id": f"disk-{self.name}",
            "drive": self.name,
            "bus": "usb.0",
            "removable": True,
        }
        return found | ({"port": str(self.port)} if self.port else {})

    def arguments(self) -> list[str]:
        place = {"port": self.port} if self.port else {}
        device = option("usb-storage", id=f"disk-{self.name}", drive=self.name, bus="usb.0", removable=True, **place)
        return [*handed(self.descriptor), "-blockdev", _json(self.node()), "-device", device]


def _file(path: str, name: str, *, read_only: bool) -> dict[str, Any]:
    return {"driver": "file", "node-name": name, "filename": path, "read-only": read_only, "discard": "unmap"}


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
