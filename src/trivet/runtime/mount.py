"""From a spec's mounts to operations: the words of mount(8) as tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

import msgspec

from trivet.base.error import InvalidArgument, Unsupported
from trivet.kernel.cgroup_record import Hierarchy
from trivet.launch.operation import Bind, Operation, ReadOnly
from trivet.launch.operation import Mount as MountOperation
from trivet.oci.runtime import Mount

READ_ONLY, NO_SUID, NO_DEVICE, NO_EXEC, NO_ACCESS_TIME, STRICT_ACCESS_TIME = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
NO_DIRECTORY_TIME = 0x80
RECURSIVE = 0x4000
PRIVATE, SLAVE, SHARED, UNBINDABLE = 1 << 18, 1 << 19, 1 << 20, 1 << 17

_SET = {
    "ro": READ_ONLY,
    "nosuid": NO_SUID,
    "nodev": NO_DEVICE,
    "noexec": NO_EXEC,
    "noatime": NO_ACCESS_TIME,
    "strictatime": STRICT_ACCESS_TIME,
    "nodiratime": NO_DIRECTORY_TIME,
}
_CLEAR = {
    "rw": READ_ONLY,
    "suid": NO_SUID,
    "dev": NO_DEVICE,
    "exec": NO_EXEC,
    "atime": NO_ACCESS_TIME,
    "nostrictatime": STRICT_ACCESS_TIME,
    "diratime": NO_DIRECTORY_TIME,
}
PROPAGATION = {
    "private": PRIVATE,
    "rprivate": PRIVATE | RECURSIVE,
    "slave": SLAVE,
    "rslave": SLAVE | RECURSIVE,
    "shared": SHARED,
    "rshared": SHARED | RECURSIVE,
    "unbindable": UNBINDABLE,
    "runbindable": UNBINDABLE | RECURSIVE,
}
_NOTHING = ("defaults", "relatime", "norelatime", "async", "nomand", "silent", "loud", "remount", "auto", "noauto")
WORDS = {*_SET, *_CLEAR, *PROPAGATION, *_NOTHING, "bind", "rbind"}
_LATER = ("idmap", "ridmap", "tmpcopyup")


class MountOptionUnsupported(Unsupported):
    """A mount option this runtime can't do yet."""

    def __init__(self, target: str, word: str) -> None:
        super().__init__(f"mount option {word} of {target} is not supported yet")


class MountTargetRelative(InvalidArgument):
    """A target that isn't an absolute path."""

    def __init__(self, target: str) -> None:
        super().__init__(f"mount target {target!r} is not an absolute path")


class Options(msgspec.Struct, frozen=True):
    """A mount's words, sorted out."""

    attributes: int
    propagation: int
    data: tuple[str, ...]
    bind: bool
    recursive: bool


def options(mount: Mount) -> Options:
    """Sort a mount's words out; later words win."""
    attributes, propagation, data = 0, 0, []
    for word in mount.options:
        if word in _SET:
            attributes |= _SET[word]
        elif word in _CLEAR:
            attributes &= ~_CLEAR[word]
        elif word in PROPAGATION:
            propagation = PROPAGATION[word]
        elif word in _LATER or (word.startswith("r") and word[1:] in _SET | _CLEAR):
            raise MountOptionUnsupported(mount.destination, word)
        elif word not in (*_NOTHING, "bind", "rbind"):
            data.append(word)
    bind = mount.type == "bind" or bool({"bind", "rbind"} & set(mount.options))
    return Options(attributes, propagation, tuple(data), bind, "rbind" in mount.options)


def operations(mounts: Iterable[Mount], hierarchies: tuple[Hierarchy, ...], bundle: str = "") -> list[Operation]:
    """Spell out all mounts of a spec. Raises `InvalidArgument` and `Unsupported` naming the target."""
    found: list[Operation] = []
    for mount in mounts:
        if not mount.destination.startswith("/"):
            raise MountTargetRelative(mount.destination)
        found += _cgroup(mount, hierarchies) if mount.type in ("cgroup", "cgroup2") else [_one(mount, bundle)]
    return found


def _one(mount: Mount, bundle: str) -> Operation:
    chosen = options(mount)
    if chosen.bind:
        return Bind(
            source=str(PurePosixPath(bundle, mount.source)),
            target=mount.destination,
            recursive=int(chosen.recursive),
            attributes=chosen.attributes,
            propagation=chosen.propagation or PROPAGATION["rprivate"],
        )
    return MountOperation(
        fstype=mount.type,
        source=mount.source or mount.type,
        target=mount.destination,
        attributes=chosen.attributes,
        options=chosen.data,
    )


def _cgroup(mount: Mount, hierarchies: tuple[Hierarchy, ...]) -> list[Operation]:
    """Show the cgroup tree as the host has it: one version 2 mount, or a tmpfs of version 1 hierarchies.

    Inside a cgroup namespace each shows the instance's own group as its root.
    """
    attributes = options(mount).attributes
    old = [hierarchy for hierarchy in hierarchies if hierarchy.version == 1]
    if not old:
        return [MountOperation("cgroup2", "cgroup", mount.destination, attributes)]
    base = NO_SUID | NO_DEVICE | NO_EXEC
    found: list[Operation] = [
        MountOperation("tmpfs", "tmpfs", mount.destination, base | attributes & ~READ_ONLY, ("mode=755", "size=64k"))
    ]
    for hierarchy in old:
        words = (*hierarchy.controllers, *((hierarchy.name, "none") if hierarchy.name else ()))
        directory = ",".join(hierarchy.controllers) or hierarchy.name.removeprefix("name=")
        found.append(MountOperation("cgroup", "cgroup", f"{mount.destination}/{directory}", attributes, words))
    if attributes & READ_ONLY:
        found.append(ReadOnly(mount.destination))
    return found
