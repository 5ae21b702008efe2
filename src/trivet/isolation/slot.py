"""Slots of a running machine: devices that its guest is asked to let go, and interfaces that come and go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from trivet.base.error import Conflict, TimedOut
from trivet.hypervisor import exchange
from trivet.hypervisor.device.nic import PREFIX, Nic
from trivet.hypervisor.qmp import Qmp, QmpRefused
from trivet.hypervisor.system import SOCKETS
from trivet.isolation.plan import Attachment
from trivet.kernel.tap import open_tap

_UNPLUG = 40.0  # a guest blinks for five seconds, as if somebody could think better of it
_STEP = 0.1
_MOMENT = 5.0
PATIENCE = _UNPLUG + 10


class NoSocket(Conflict):
    """Everything is plugged in that can be."""

    def __init__(self, machine: str, most: int) -> None:
        super().__init__(
            f"machine {machine} has all {most} interfaces that can come and go while it runs",
            hint=f"trivet stop {machine} first",
        )


def let_go(qmp: Qmp, device: str, what: str, machine: str, patience: float = _UNPLUG) -> None:
    """Ask the guest to let a device go, and wait until it has. Raises `Conflict`, `TimedOut`."""
    deadline = time.monotonic() + patience
    try:
        qmp.execute("device_del", id=device)
    except QmpRefused as error:
        if "hotplug" not in error.message:
            raise
        raise Conflict(
            f"{what} of machine {machine} was there when it was switched on and cannot be unplugged",
            hint=f"trivet vm stop {machine} first",
        ) from error
    while device in devices(qmp):
        if time.monotonic() > deadline:
            raise TimedOut(f"the guest of machine {machine} does not let {what} go")
        time.sleep(_STEP)


def devices(qmp: Qmp) -> set[str]:
    """List what has a name."""
    return {str(each["name"]) for each in qmp.execute("qom-list", path="/machine/peripheral")}


def patiently(do: Callable[[], object]) -> None:
    """Do what is refused for a moment: QEMU lets what is behind a device go a little after it."""
    deadline = time.monotonic() + _MOMENT
    while True:
        try:
            do()
            return
        except QmpRefused:
            if time.monotonic() > deadline:
                raise
            time.sleep(_STEP)


def plug(qmp: Qmp, use: Attachment, machine: str, sockets: Mapping[str, str] | None = None) -> None:
    """Plug an interface into the first free one of the sockets. What was made goes again when that fails."""
    taken, sockets = devices(qmp), sockets or {f"net{number}": name for number, name in enumerate(SOCKETS.names)}
    wanted = (Nic(name=card, tap=use.device, mac=use.mac, slot=name, movable=True) for card, name in sockets.items())
    nic = next((each for each in wanted if each.device not in taken), None)
    if nic is None:
        raise NoSocket(machine, len(sockets))
    descriptor = os.open(use.path, os.O_RDWR | os.O_CLOEXEC) if use.path else open_tap(use.device)
    try:
        exchange.interface(qmp, nic, descriptor)
    except BaseException:
        with suppress(QmpRefused):
            qmp.execute("netdev_del", id=nic.name)
        raise
    finally:
        os.close(descriptor)


def unplug(qmp: Qmp, mac: str, network: str, machine: str) -> None:
    """Take an interface away, found by its address; nothing where it isn't there any more."""
    for name in sorted(devices(qmp)):
        if not name.startswith(PREFIX):
            continue
        found = str(qmp.execute("qom-get", path=f"/machine/peripheral/{name}", property="mac"))
        if found.lower() == mac.lower():
            let_go(qmp, name, f"the interface on network {network}", machine)
            patiently(partial(qmp.execute, "netdev_del", id=name.removeprefix(PREFIX)))
            return


def layout(qmp: Qmp) -> list[str]:
    """List the addresses of the interfaces, by their places."""
    names = sorted(name for name in devices(qmp) if name.startswith(PREFIX))
    return [f"{n}={qmp.execute('qom-get', path=f'/machine/peripheral/{n}', property='mac')}".lower() for n in names]
