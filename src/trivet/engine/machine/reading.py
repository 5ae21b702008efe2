"""Disks of machines that are off, opened where they can do no harm (engine/disk/tool.py)."""

from __future__ import annotations

import msgspec

from trivet.engine.disk.tool import Tool
from trivet.isolation import computer
from trivet.isolation.hardware import Disk


def add(qemu: Tool, planned: Disk, *, writable: bool = False) -> str:
    """Open a disk, with what the plan says is below it and nothing that its header does; its node's name."""
    number = qemu.hand(planned.path, writable=writable)
    base = qemu.hand(planned.base) if planned.base else None
    kept = [qemu.hand(path) for path in planned.kept]
    disk = computer.disk(planned, descriptor=number, base=base, kept=kept)
    disk = msgspec.structs.replace(disk, read_only=not writable)
    qemu.add(disk.node())
    return disk.name
