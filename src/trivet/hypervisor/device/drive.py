"""Drives: raw image files on virtio-blk, in the order the guest counts them (vda, vdb, ...)."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import handed, opened, option

FILE = "file"  # the last word of the node below a drive that can be changed
_LARGE = 1 << 40


class Drive(msgspec.Struct, frozen=True, kw_only=True):
    """A raw image file.

    `discard` hands the guest's TRIM down to the file. A read-only drive may be shared by any number of machines;
    a writable one is locked by QEMU. With a `descriptor` it is open already. Another file can take the place of one
    that is `changeable`, while the machine runs.
    """

    name: str
    path: str
    read_only: bool = False
    discard: bool = True
    descriptor: int | None = None
    changeable: bool = False

    def arguments(self) -> list[str]:
        backend = option(
            "file",
            node_name=f"{self.name}-{FILE}" if self.changeable else self.name,
            filename=opened(self.path, self.descriptor),
            read_only=self.read_only,
            discard="unmap" if self.discard and not self.read_only else "ignore",
        )
        above = ["-blockdev", f"driver={option('raw', **self._above())}"] if self.changeable else []
        return [*handed(self.descriptor), "-blockdev", f"driver={backend}", *above, *_disk(self.name)]

    def _above(self) -> dict[str, str | bool]:
        how = "ignore" if self.read_only else "unmap"
        return {
            "node_name": self.name,
            "file": f"{self.name}-{FILE}",
            "read_only": self.read_only,
            "discard": how,
        }


class Placeholder(msgspec.Struct, frozen=True, kw_only=True):
    """What a template has where its forks have a drive: as large as any, and empty.

    The guest goes on taking the drive for that large; beyond the file's end there are only errors.
    """

    name: str
    read_only: bool = False

    def arguments(self) -> list[str]:
        backend = option("null-co", node_name=self.name, size=_LARGE, read_zeroes=True, read_only=self.read_only)
        return ["-blockdev", f"driver={backend}", *_disk(self.name)]


def _disk(name: str) -> list[str]:
    # The guest sets memory aside for every request there can be: 64 keep a disk as busy as 256 do.
    return ["-device", option("virtio-blk-pci", drive=name, queue_size=64)]
