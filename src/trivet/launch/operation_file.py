"""Operations on mounts and files: what the program will see as its file system."""

from __future__ import annotations

from trivet.launch.codec import Operation


class WriteFile(Operation, frozen=True):
    """Write `data` to an existing host path with one write(2); `optional` 1 ignores a failure."""

    code = 10
    path: str
    data: bytes
    optional: int = 0


class OpenTree(Operation, frozen=True):
    """Copy host path `source` as a tree for a later `Bind`, in the launcher: its rights are more than the child's.

    With maps ("inside outside size" lines, or as `uid_map` the path of a user namespace's file) the files show other
    owners (MOUNT_ATTR_IDMAP), with `deep` 1 also below further mounts; with `lenient` 1 only where the file system can.
    """

    code = 14
    source: str
    recursive: int = 1
    uid_map: str = ""
    gid_map: str = ""
    deep: int = 0
    lenient: int = 0


class OpenOverlay(Operation, frozen=True):
    """Make an overlay for a later `Bind`, in the launcher, its layers showing other owners (maps as of `OpenTree`).

    `lowers` are host paths, topmost first; `writable` the host directory that holds `upper` and `work`, "" for none.
    `owner` is whose files overlayfs's own are, user and group: the layers must know him.
    Where the kernel takes only mounted layers they are mounted over host directory `place`, in a mount namespace of
    its own; with `attached` 1 always, with 2 and by mount(2), as before Linux 6.5.
    """

    code = 16
    lowers: tuple[str, ...]
    writable: str
    place: str
    volatile: int = 0
    uid_map: str = ""
    gid_map: str = ""
    owner: int = 0
    attached: int = 0


class Propagation(Operation, frozen=True):
    """Change the propagation of the mount at host path `path` (MS_PRIVATE, MS_REC ...)."""

    code = 20
    repeated = True
    path: str
    flags: int


class Root(Operation, frozen=True):
    """Take host directory `path` as the root that root paths are resolved below."""

    code = 21
    repeated = True
    path: str


class Mount(Operation, frozen=True):
    """Mount a new file system through fsopen/fsconfig/fsmount/move_mount at a root path.

    `options` are fsconfig strings ("key=value" or flags); `attributes` are MOUNT_ATTR_*;
    `make` creates a missing target: 0 no, 1 directory, 2 file. `host` 1: `target` is a host path.
    `optional` 1 ignores a failure. `copy` 1 copies what the target holds into the new file system first.
    """

    code = 22
    repeated = True
    fstype: str
    source: str
    target: str
    attributes: int = 0
    options: tuple[str, ...] = ()
    make: int = 1
    host: int = 0
    optional: int = 0
    copy: int = 0


class Bind(Operation, frozen=True):
    """Show host path `source` at a root path: open_tree(CLONE), mount_setattr, move_mount.

    `attributes` MOUNT_ATTR_* to set and to `clear` (recursively with `recursive` 1, unless `shallow` 1), after
    `deep_set` and `deep_clear`, which always are. `propagation` MS_* (0: leave). `make` as in `Mount`, 3: a file
    or a directory, as the source is. With `tree` N the source is what the Nth `OpenTree` copied.
    """

    code = 23
    source: str
    target: str
    recursive: int = 1
    attributes: int = 0
    propagation: int = 0
    make: int = 3
    host: int = 0
    optional: int = 0
    tree: int = 0
    shallow: int = 0
    clear: int = 0
    deep_set: int = 0
    deep_clear: int = 0


class AwaitUnused(Operation, frozen=True):
    """Wait until nobody has mounted the block device at host path `path`, at most 5 s."""

    code = 76
    path: str


class Directory(Operation, frozen=True):
    """Make a directory, and missing parents, at a root path; an existing one is left alone."""

    code = 24
    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    host: int = 0


class Node(Operation, frozen=True):
    """mknod(2) at a root path; `mode` includes the type. An existing node of the same kind is kept."""

    code = 25
    repeated = True
    path: str
    mode: int
    major: int = 0
    minor: int = 0
    uid: int = 0
    gid: int = 0


class Symlink(Operation, frozen=True):
    """Make a symbolic link `path` -> `target`; an existing file there is kept."""

    code = 26
    repeated = True
    path: str
    target: str


class File(Operation, frozen=True):
    """Write a whole file at a root path (created or truncated; never through a link out of the root)."""

    code = 27
    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class Mask(Operation, frozen=True):
    """Hide a root path: /dev/null over a file, an empty read-only tmpfs over a directory; missing is fine."""

    code = 28
    repeated = True
    path: str


class ReadOnly(Operation, frozen=True):
    """Make a root path read-only by a bind mount of itself; missing is fine."""

    code = 29
    repeated = True
    path: str


class RemountRoot(Operation, frozen=True):
    """Set MOUNT_ATTR_* `attributes` on the root mount itself (after everything under it was mounted)."""

    code = 30
    attributes: int


class Pivot(Operation, frozen=True):
    """pivot_root(2) into the root and detach what was before; the root path rule stays in force."""

    code = 31
    repeated = True


class Chroot(Operation, frozen=True):
    """chroot(2) into the root (where pivot_root can't work: initramfs)."""

    code = 32


class Unmount(Operation, frozen=True):
    """Detach (MNT_DETACH) what is mounted at a host path."""

    code = 33
    path: str
    optional: int = 0
