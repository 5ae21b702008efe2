"""From a spec's mounts to operations: the words of mount(8) as tables."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import PurePosixPath

import msgspec

from trivet.base.error import InvalidArgument
from trivet.kernel.cgroup_record import Hierarchy
from trivet.launch.operation import Bind, OpenOverlay, OpenTree, Operation, ReadOnly
from trivet.launch.operation import Mount as MountOperation
from trivet.oci.runtime import IdMapping, Mount

READ_ONLY, NO_SUID, NO_DEVICE, NO_EXEC, NO_ACCESS_TIME, STRICT_ACCESS_TIME = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
NO_DIRECTORY_TIME, NO_LINKS = 0x80, 0x200000
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
    "nosymfollow": NO_LINKS,
}
_CLEAR = {
    "rw": READ_ONLY,
    "suid": NO_SUID,
    "dev": NO_DEVICE,
    "exec": NO_EXEC,
    "atime": NO_ACCESS_TIME,
    "nostrictatime": STRICT_ACCESS_TIME,
    "diratime": NO_DIRECTORY_TIME,
    "symfollow": NO_LINKS,
}
SHALLOW = frozenset({*_SET, *_CLEAR})
"""Words that say nothing about what is mounted below."""
_DEEP_SET = {f"r{word}": bits for word, bits in _SET.items()}
_DEEP_CLEAR = {f"r{word}": bits for word, bits in _CLEAR.items()} | {"rnorelatime": 0, "rrelatime": 0}
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
_WHOLE = ("sync", "dirsync", "lazytime", "mand")  # of a file system, not of a mount: fsconfig(2) knows them
_NOTHING = (
    *("defaults", "relatime", "norelatime", "async", "nomand", "nolazytime", "silent", "loud", "remount"),
    *("auto", "noauto", "iversion", "noiversion", "acl", "noacl"),
)
_KIND = ("bind", "rbind", "idmap", "ridmap", "tmpcopyup")
WORDS = {*_SET, *_CLEAR, *_DEEP_SET, *_DEEP_CLEAR, *PROPAGATION, *_WHOLE, *_NOTHING, *_KIND}


class MountTargetRelative(InvalidArgument):
    """A target that isn't an absolute path."""

    def __init__(self, target: str) -> None:
        super().__init__(f"mount target {target!r} is not an absolute path")


class MappingIncomplete(InvalidArgument):
    """An id-mapped mount without the maps it needs."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"the mount at {target} needs maps: uidMappings and gidMappings, or a user namespace with them"
        )


class CopyUpImpossible(InvalidArgument):
    """What tmpcopyup can't be said of."""

    def __init__(self, target: str) -> None:
        super().__init__(f"mount option tmpcopyup of {target} needs a tmpfs")


class Options(msgspec.Struct, frozen=True):
    """A mount's words, sorted out: what to set and clear on the mount, what on those below it as well, and the rest."""

    words: frozenset[str]
    attributes: int
    clear: int
    deep_set: int
    deep_clear: int
    propagation: int
    data: tuple[str, ...]
    bind: bool


class Maps(msgspec.Struct, frozen=True):
    """Owners as the lines of /proc/PID/uid_map and gid_map, or twice the path of a user namespace's file."""

    users: str = ""
    groups: str = ""
    root: int = 0  # who 0 inside is


def maps(users: tuple[IdMapping, ...], groups: tuple[IdMapping, ...]) -> Maps:
    """Spell mappings out."""
    return Maps(lines(users), lines(groups))


def options(mount: Mount) -> Options:
    """Sort a mount's words out; later words win."""
    attributes = clear = deep_set = deep_clear = propagation = 0
    data = []
    for word in mount.options:
        if word in _SET:
            attributes, clear = attributes | _SET[word], clear & ~_SET[word]
        elif word in _CLEAR:
            attributes, clear = attributes & ~_CLEAR[word], clear | _CLEAR[word]
        elif word in _DEEP_SET:
            deep_set, deep_clear = deep_set | _DEEP_SET[word], deep_clear & ~_DEEP_SET[word]
        elif word in _DEEP_CLEAR:
            deep_set, deep_clear = deep_set & ~_DEEP_CLEAR[word], deep_clear | _DEEP_CLEAR[word]
        elif word in PROPAGATION:
            propagation = PROPAGATION[word]
        elif word not in (*_NOTHING, *_KIND):
            data.append(word)
    words = frozenset(mount.options)
    bind = mount.type == "bind" or bool({"bind", "rbind"} & words)
    return Options(words, attributes, clear, deep_set, deep_clear, propagation, tuple(data), bind)


class Mounts(msgspec.Struct, frozen=True):
    """What the launcher copies before the child is made, and what the child mounts."""

    trees: list[Operation]
    steps: list[Operation]


def operations(
    mounts: Iterable[Mount],
    hierarchies: tuple[Hierarchy, ...],
    bundle: str = "",
    *,
    group: str | None = None,
    own: Maps | None = None,
    first: tuple[Operation, ...] = (),
    shown: bool = False,
) -> Mounts:
    """Spell out all mounts of a spec. Raises `InvalidArgument` and `Unsupported` naming the target.

    `own` are the maps of a user namespace of the container's own: its root can't reach everything on the host,
    so the launcher opens the sources for it, those in `first` too, which show the root; with `shown` that root's files
    have the owners of `own`, and a file system that can't show them is shown as it is. Without a cgroup namespace of
    its own only the control group `group` is shown.
    """
    trees: list[Operation] = []
    steps: list[Operation] = [step if own is None else _first(step, trees, own if shown else Maps()) for step in first]
    for mount in mounts:
        if not mount.destination.startswith("/"):
            raise MountTargetRelative(mount.destination)
        if mount.type in ("cgroup", "cgroup2") and not options(mount).bind:
            groups = _cgroup(mount, hierarchies, group)
            steps += [_opened(step, trees) if own is not None and isinstance(step, Bind) else step for step in groups]
        else:
            steps.append(_one(mount, bundle, own, trees, lenient=shown))
    return Mounts(trees, steps)


def _first(step: Operation, trees: list[Operation], maps: Maps) -> Operation:
    """Let the launcher make or open what shows the root."""
    if isinstance(step, Bind):
        return _opened(step, trees, maps)
    if isinstance(step, MountOperation) and step.fstype == "overlay" and maps.users:
        words = [word.partition("=") for word in step.options]
        upper = next((value for key, _, value in words if key == "upperdir"), "")
        trees.append(
            OpenOverlay(
                lowers=tuple(value for key, _, value in words if key == "lowerdir+"),
                writable=posixpath.dirname(upper),
                place=step.target,
                volatile=int("volatile" in step.options),
                uid_map=maps.users,
                gid_map=maps.groups,
                owner=maps.root,
            )
        )
        return Bind("overlay", step.target, recursive=0, host=step.host, make=step.make, tree=len(trees))
    return step


def _opened(
    bind: Bind, trees: list[Operation], maps: Maps | None = None, deep: bool = False, lenient: bool = False
) -> Bind:
    """Let the launcher open a bind's source."""
    maps = maps or Maps()
    trees.append(OpenTree(bind.source, bind.recursive, maps.users, maps.groups, int(deep), int(lenient)))
    return msgspec.structs.replace(bind, tree=len(trees))


def _one(mount: Mount, bundle: str, own: Maps | None, trees: list[Operation], *, lenient: bool) -> Operation:
    chosen = options(mount)
    if not chosen.bind:
        return _new(mount, chosen)
    bind = Bind(
        source=mount.source if mount.source.startswith("/") else str(PurePosixPath(bundle, mount.source)),
        target=mount.destination,
        recursive=int("rbind" in chosen.words),
        attributes=chosen.attributes,
        propagation=chosen.propagation or PROPAGATION["rprivate"],
        shallow=1,
        clear=chosen.clear,
        deep_set=chosen.deep_set,
        deep_clear=chosen.deep_clear,
    )
    if mount.uid_mappings or mount.gid_mappings or {"idmap", "ridmap"} & chosen.words:
        lenient = lenient and not mount.uid_mappings  # who says which owners wants to see those
        return _opened(bind, trees, _mapping(mount, own), "ridmap" in chosen.words, lenient)
    return bind if own is None else _opened(bind, trees)


def _mapping(mount: Mount, own: Maps | None) -> Maps:
    found = maps(mount.uid_mappings, mount.gid_mappings)
    if not found.users and not found.groups and own is not None:
        found = own
    if not (found.users and found.groups):
        raise MappingIncomplete(mount.destination)
    return found


def _new(mount: Mount, chosen: Options) -> Operation:
    copy = "tmpcopyup" in chosen.words
    if copy and mount.type != "tmpfs":
        raise CopyUpImpossible(mount.destination)
    return MountOperation(
        fstype=mount.type,
        source=mount.source or mount.type,
        target=mount.destination,
        attributes=(chosen.attributes | chosen.deep_set) & ~chosen.deep_clear,
        options=chosen.data,
        copy=int(copy),
    )


def lines(mappings: tuple[IdMapping, ...]) -> str:
    """Write maps as the kernel reads them."""
    return "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in mappings)


def _cgroup(mount: Mount, hierarchies: tuple[Hierarchy, ...], group: str | None) -> list[Operation]:
    """Show the cgroup tree as the host has it: one version 2 mount, or a tmpfs of version 1 hierarchies.

    Inside a cgroup namespace each shows the instance's own group as its root.
    """
    attributes = options(mount).attributes
    old = [hierarchy for hierarchy in hierarchies if hierarchy.version == 1]
    if not old and group is None:
        return [MountOperation("cgroup2", "cgroup", mount.destination, attributes)]
    if not old:
        return [_group(hierarchies[0], group or "", mount.destination, attributes)]
    base = NO_SUID | NO_DEVICE | NO_EXEC
    found: list[Operation] = [
        MountOperation("tmpfs", "tmpfs", mount.destination, base | attributes & ~READ_ONLY, ("mode=755", "size=64k"))
    ]
    for hierarchy in old:
        words = (*hierarchy.controllers, *((hierarchy.name, "none") if hierarchy.name else ()))
        target = f"{mount.destination}/{','.join(hierarchy.controllers) or hierarchy.name.removeprefix('name=')}"
        if group is None:
            found.append(MountOperation("cgroup", "cgroup", target, attributes, words))
        else:
            found.append(_group(hierarchy, group, target, attributes))
    if attributes & READ_ONLY:
        found.append(ReadOnly(mount.destination))
    return found


def _group(hierarchy: Hierarchy, group: str, target: str, attributes: int) -> Bind:
    return Bind(
        f"{hierarchy.mount}/{group}", target, attributes=attributes, propagation=PROPAGATION["rprivate"], make=1
    )
