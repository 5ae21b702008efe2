"""PCI devices of the host that a machine has to itself while it runs, chosen at its start by their class.

    /sys/bus/pci/devices/ADDRESS/   class, vendor, device · driver → who uses it · iommu_group → who can't be told apart
    /dev/vfio/GROUP                 is opened by one QEMU at a time, and shows it all of the group's memory accesses
    plan.directory/pci              the addresses that the machine was given

Only a device that somebody bound to vfio-pci is given away: what the host itself uses is never taken from it.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from trivet.base.error import Exhausted, InvalidArgument, Unsupported
from trivet.isolation.plan import Plan
from trivet.launch.operation import Bind, Mount, Node, Operation, Rlimit
from trivet.runtime.mount import NO_DEVICE, NO_EXEC, NO_SUID, READ_ONLY

CLASSES: Mapping[str, str] = {
    "accelerator": "12",
    "audio": "0403",
    "gpu": "03",
    "network": "02",
    "nvme": "0108",
    "storage": "01",
    "usb": "0c03",
}
"""How a class begins that the PCI Code and ID Assignment Specification gives a number (base class, subclass)."""
MOST = 8
MARK = "pci"
_WISH = re.compile(r"([a-z]+)(?::([0-9a-f]{4})(?::([0-9a-f]{4}))?)?")
_BRIDGE, _OURS = "0604", ("", "vfio-pci", "pci-stub")
_ROOM = 1 << 30  # that is locked beside the guest's memory
_choosing = threading.Lock()


class Given(msgspec.Struct, frozen=True):
    """A device of this host: where it is, its group, and its directory in /sys."""

    address: str
    group: str
    directory: str


class Places(msgspec.Struct, frozen=True):
    """Where the kernel shows devices."""

    devices: Path = Path("/sys/bus/pci/devices")
    groups: Path = Path("/sys/kernel/iommu_groups")
    vfio: Path = Path("/dev/vfio")


def check(wish: str) -> str:
    """Return a wish as it is: CLASS[:VENDOR[:DEVICE]]. Raises `InvalidArgument`."""
    found = _WISH.fullmatch(wish)
    if found is None or found[1] not in CLASSES:
        raise InvalidArgument(
            f"{wish[:40]!r} is no class of PCI devices: {', '.join(CLASSES)}",
            hint="further narrowed by vendor and device: gpu:10de, gpu:10de:1eb8",
        )
    return wish


def choose(plan: Plan, wishes: tuple[str, ...], places: Places | None = None) -> tuple[Given, ...]:
    """Choose a free device for each wish, and note that they are taken as long as the run directory is there.

    Raises `Unsupported` where the host can't give devices away, `Exhausted` where it has none that is free.
    """
    if not wishes:
        return ()
    places = places or Places()
    if not (places.groups.is_dir() and any(places.groups.iterdir())):
        raise Unsupported(
            f"cannot give machine {plan.name} a device of the host: the host has no IOMMU in use",
            hint="switch it on in the firmware (VT-d, AMD-Vi) and by intel_iommu=on or amd_iommu=on on the kernel's "
            "command line",
        )
    if not (places.vfio / "vfio").exists():
        raise Unsupported(
            f"cannot give machine {plan.name} a device of the host: the kernel's VFIO is not there",
            hint="modprobe vfio-pci",
        )
    with _choosing:
        taken, found = _taken(plan), list[Given]()
        for wish in wishes:
            found.append(_one(plan, wish, places, taken))
            taken[found[-1].address] = plan.name
        (Path(plan.directory) / MARK).write_text("".join(f"{each.address}\n" for each in found))
    return tuple(found)


def shown(given: tuple[Given, ...], user: int, memory: int, places: Places | None = None) -> list[Operation]:
    """Show QEMU its devices, by nodes of its own, and let it lock its guest's memory, which devices reach."""
    if not given:
        return []
    places, safe = places or Places(), NO_SUID | NO_EXEC
    names = ["vfio", *dict.fromkeys(each.group for each in given)]
    limit = memory + _ROOM
    return [
        Rlimit(resource.RLIMIT_MEMLOCK, limit, limit),
        Mount("tmpfs", "tmpfs", "/dev/vfio", safe, ("mode=755", "size=64k")),
        *(_node(places.vfio / name, user) for name in names),
        *(
            Bind(each.directory, f"/sys/bus/pci/devices/{each.address}", attributes=safe | READ_ONLY | NO_DEVICE)
            for each in given
        ),
    ]


def _node(path: Path, user: int) -> Node:
    number = path.stat().st_rdev
    inside = f"/dev/vfio/{path.name}"
    return Node(inside, stat.S_IFCHR | 0o600, os.major(number), os.minor(number), user, user)


def _taken(plan: Plan) -> dict[str, str]:
    """List what other machines were given, by address."""
    own = Path(plan.directory)
    marks = (path for path in own.parent.glob(f"*/{MARK}") if path.parent != own)
    return {address: "another machine" for path in marks for address in _read(path).split()}


def _one(plan: Plan, wish: str, places: Places, taken: Mapping[str, str]) -> Given:
    reasons = []
    for device in sorted(places.devices.iterdir()):
        if not _is(device, wish):
            continue
        reason = _objection(device, places, taken)
        if not reason:
            return Given(device.name, _link(device / "iommu_group"), str(device.resolve()))
        reasons.append(f"{device.name} {reason}")
    if not reasons:
        raise Exhausted(f"cannot give machine {plan.name} a device of class {wish}: the host has none")
    raise Exhausted(
        f"cannot give machine {plan.name} a device of class {wish}: {'; '.join(reasons)}",
        hint="a device is given away by binding it to vfio-pci: driverctl set-override ADDRESS vfio-pci",
    )


def _is(device: Path, wish: str) -> bool:
    found = _WISH.fullmatch(wish)
    if found is None:
        return False
    numbers = _number(device / "vendor"), _number(device / "device")
    return _number(device / "class").startswith(CLASSES[found[1]]) and all(
        wanted in (None, number) for wanted, number in zip(found.groups()[1:], numbers, strict=True)
    )


def _objection(device: Path, places: Places, taken: Mapping[str, str]) -> str:
    """Tell why a device can't be given away, or ""."""
    group, driver = _link(device / "iommu_group"), _link(device / "driver")
    if device.name in taken:
        return f"is given to {taken[device.name]}"
    if driver != "vfio-pci":
        return f"is used by this host (driver {driver})" if driver else "is not bound to vfio-pci"
    if not group:
        return "is in no IOMMU group"
    for other in sorted(places.groups.joinpath(group, "devices").iterdir()):
        if (used := _link(other / "driver")) not in _OURS and not _number(other / "class").startswith(_BRIDGE):
            return f"can't be told apart from {other.name} (IOMMU group {group}), which this host uses (driver {used})"
        if other.name in taken and taken[other.name] == "another machine":
            return f"can't be told apart from {other.name} (IOMMU group {group}), which is given to another machine"
    return _busy(places.vfio / group)


def _busy(group: Path) -> str:
    try:
        os.close(os.open(group, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return "is in use" if error.errno == errno.EBUSY else f"can't be had ({group}: {error.strerror})"
    return ""


def _number(path: Path) -> str:
    return _read(path).strip().removeprefix("0x")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # gone meanwhile
        return ""


def _link(path: Path) -> str:
    """Name what a link points to; "" where it isn't there."""
    try:
        return path.readlink().name
    except OSError:
        return ""
