"""The device nodes, links and access rules that every container gets (runtime-spec, "Default Devices")."""

from __future__ import annotations

import stat

from trivet.base.error import InvalidArgument
from trivet.launch.operation import Bind, Node, Operation, Symlink
from trivet.oci.runtime import Device, DeviceRule, Mount

DEFAULT = tuple(
    Device(type="c", path=f"/dev/{name}", major=major, minor=minor, file_mode=0o666)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)

LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/ptmx": "pts/ptmx",
}

_TYPE = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}

# Nodes may be made of any device, but used only of these: the defaults, /dev/console, and pseudo-terminals.
RULES = (
    DeviceRule(allow=False),
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    *(DeviceRule(allow=True, type="c", major=device.major, minor=device.minor) for device in DEFAULT),
    DeviceRule(allow=True, type="c", major=5, minor=1),
    DeviceRule(allow=True, type="c", major=5, minor=2),
    DeviceRule(allow=True, type="c", major=136),
)
EVERYTHING = (DeviceRule(allow=True),)


def own_dev(mounts: tuple[Mount, ...]) -> bool:
    """Tell whether /dev is the container's: mounted, and not the host's by a bind mount."""
    return any(m.destination.rstrip("/") == "/dev" and m.type not in ("", "bind") for m in mounts)


def own_terminals(mounts: tuple[Mount, ...]) -> bool:
    """Tell whether the container has pseudo-terminals of its own."""
    return any(m.type == "devpts" for m in mounts)


def operations(extra: tuple[Device, ...], *, bound: bool = False) -> list[Operation]:
    """Make nodes and links. With `bound` the host's nodes are shown instead: in a user namespace none can be made."""
    devices = {device.path: device for device in (*DEFAULT, *extra)}
    make = _shown if bound else _node
    found: list[Operation] = [make(device) for device in devices.values()]
    found += [Symlink(path, target) for path, target in LINKS.items()]
    return found


def _shown(device: Device) -> Operation:
    return Bind(device.path, device.path, recursive=0)


def _node(device: Device) -> Operation:
    if device.type != "p" and not (0 <= device.major < 1 << 32 and 0 <= device.minor < 1 << 32):
        raise InvalidArgument(f"device {device.path} has an impossible number - at `$.linux.devices`")
    mode = 0o666 if device.file_mode is None else device.file_mode & 0o777
    return Node(device.path, _TYPE[device.type] | mode, device.major, device.minor, device.uid, device.gid)
