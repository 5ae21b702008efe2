"""Network interfaces of the host that move into a container and keep their addresses (runtime-spec, netDevices)."""

from __future__ import annotations

import re
import socket

from trivet.base.error import InvalidArgument, NotFound
from trivet.launch.operation import AddAddress, LinkUp, Operation, Sync
from trivet.oci.runtime import Linux
from trivet.runtime import namespace

MOVE = "devices"
"""The point at which a launch waits for its interfaces."""

_NAME = re.compile(r"(?!\.{1,2}$)[^\s/:%\0]{1,15}")  # dev_valid_name in net/core/dev.c; % would be a pattern


class NoSuchDevice(NotFound):
    """An interface the host doesn't have."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the host has no network interface {name} - at `$.linux.netDevices.{name}`")


def operations(linux: Linux) -> tuple[Operation, ...]:
    """Compute what the child does when the interfaces have come: names, addresses, up.

    Looks at the host's. Raises `NoSuchDevice`, or `InvalidArgument` with the JSON path.
    """
    if not linux.net_devices:
        return ()
    if not namespace.has(linux.namespaces, "network"):
        raise InvalidArgument("interfaces need a network namespace to move to - at `$.linux.netDevices`")
    steps: list[Operation] = [Sync(MOVE)]
    taken: set[str] = set()
    for name, device in sorted(linux.net_devices.items()):
        shown = device.name or name
        if not _NAME.fullmatch(name) or not _NAME.fullmatch(shown) or shown in taken:
            raise InvalidArgument(f"no name for an interface, or one given twice - at `$.linux.netDevices.{name}`")
        taken.add(shown)
        steps += [LinkUp(name, shown), *(AddAddress(shown, address) for address in _addresses(name))]
    return tuple(steps)


def move(linux: Linux, pid: int) -> None:
    """Move the interfaces into the network namespace of a process."""
    from trivet.kernel import rtnetlink  # only here: few containers need it, and every start would pay

    for name in sorted(linux.net_devices):
        rtnetlink.move_link(name, pid)


def _addresses(name: str) -> list[str]:
    from trivet.kernel import rtnetlink

    if rtnetlink.link(name) is None:
        raise NoSuchDevice(name)
    families = (socket.AF_INET, socket.AF_INET6)
    return [str(address) for family in families for address in rtnetlink.addresses(name, family)]
