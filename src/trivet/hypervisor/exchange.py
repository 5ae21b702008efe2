"""Giving a machine that stands still drives and interfaces of its own in the place of nobody's."""

from __future__ import annotations

import time

from trivet.hypervisor.device.drive import FILE
from trivet.hypervisor.device.nic import Nic
from trivet.hypervisor.qmp import Qmp

OWN = "own"
_STEP = 0.05


def drive(qmp: Qmp, name: str, descriptor: int, *, read_only: bool, before: int) -> None:
    """Put the file that is open as `descriptor` below a changeable drive; the one that QEMU has as `before` goes.

    The node that the device and everybody else knows stays, and so does what the guest takes for its size.
    """
    below, how = f"{name}-{OWN}", {"read-only": read_only, "discard": "ignore" if read_only else "unmap"}
    file = f"/dev/fdset/{qmp.add(descriptor)}"
    qmp.execute("blockdev-add", driver="file", filename=file, **{"node-name": below}, **how)
    qmp.execute("blockdev-reopen", options=[{"driver": "raw", "node-name": name, "file": below, **how}])
    qmp.execute("blockdev-del", **{"node-name": f"{name}-{FILE}"})
    qmp.execute("remove-fd", **{"fdset-id": before})


def interface(qmp: Qmp, nic: Nic, descriptor: int) -> None:
    """Plug an interface into its slot, whose tap device is open as `descriptor`."""
    qmp.give(nic.name, descriptor)
    qmp.execute("netdev_add", type="tap", id=nic.name, fd=nic.name)
    qmp.execute("device_add", **nic.plugged())


def rehearse(qmp: Qmp, nic: Nic) -> None:
    """Plug an interface in that leads nowhere and can be taken out again."""
    qmp.execute("netdev_add", type="hubport", id=nic.name, hubid=0)
    qmp.execute("device_add", **nic.plugged())


def end_rehearsal(qmp: Qmp, nic: Nic, patience: float) -> bool:
    """Take it out again; whether the guest has let go of it within `patience` seconds."""
    qmp.execute("device_del", id=nic.device)
    deadline = time.monotonic() + patience
    while nic.device in (each["name"] for each in qmp.execute("qom-list", path="/machine/peripheral")):
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP)
    qmp.execute("netdev_del", id=nic.name)
    return True
