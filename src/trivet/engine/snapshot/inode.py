"""A layer's files as they will be, in memory: everything of them but their content.

Paths are looked up as `tree.Tree` does it on disk: links on the way are followed inside the layer, as if its
root were `/`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

import msgspec

from trivet.engine.snapshot.tree import MAXIMUM_LINKS, MalformedLayer, Parts

OPAQUE = b"trusted.overlay.opaque"


class Inode(msgspec.Struct, eq=False, gc=False):
    """A file of whatever kind. `block` is where its content begins, `device` its number (makedev(3)).

    `gc=False` keeps the collector from walking a million of them; a tree has no cycles.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    block: int = 0
    device: int = 0
    links: int = 1
    target: bytes = b""
    xattrs: dict[bytes, bytes] = {}
    children: dict[bytes, Inode] | None = None

    @property
    def is_whiteout(self) -> bool:
        """Tell overlayfs's mark for "deleted here"."""
        return stat.S_ISCHR(self.mode) and self.device == 0

    @property
    def is_opaque(self) -> bool:
        """Tell whether a directory hides the ones below it."""
        return OPAQUE in self.xattrs

    def hide_below(self) -> None:
        """Make a directory opaque."""
        self.xattrs = {**self.xattrs, OPAQUE: b"y"}


def new_directory() -> Inode:
    """Make a directory root:root 0755."""
    return Inode(mode=stat.S_IFDIR | 0o755, children={})


class InodeTree:
    """Directories by path. Raises `MalformedLayer` as `tree.Tree` does."""

    def __init__(self) -> None:
        self.root = new_directory()
        self._known: dict[Parts, Inode] = {}

    def directory(self, parts: Parts, *, make: bool = False) -> Inode:
        """Find a directory. Missing ones are made with `make`, else FileNotFoundError."""
        found = self._known.get(parts)
        if found is None:
            found = self._known[parts] = self._resolve(parts, make)
        return found

    def names(self, parts: Parts, *, make: bool = False) -> dict[bytes, Inode]:
        """Find what is in a directory."""
        found = self.directory(parts, make=make).children
        assert found is not None
        return found

    def forget(self) -> None:
        """Look every path up again; needed when a directory or a link was replaced."""
        self._known.clear()

    def walk(self) -> Iterator[tuple[bytes, Inode]]:
        """List all directories, parents first."""
        pending = [(b"", self.root)]
        while pending:
            path, directory = pending.pop()
            yield path, directory
            for name, child in (directory.children or {}).items():
                if child.children is not None:
                    pending.append((path + b"/" + name, child))

    def _resolve(self, parts: Parts, make: bool) -> Inode:
        todo, links = list(reversed(parts)), 0
        trail = [self.root]
        while todo:
            name = todo.pop()
            if name == b"..":
                del trail[max(len(trail) - 1, 1) :]
                continue
            if name in (b"", b"."):
                continue
            found = _step(trail[-1], name, parts, make)
            if found.children is not None:
                trail.append(found)
                continue
            links += 1
            if links > MAXIMUM_LINKS:
                raise MalformedLayer(b"/".join(parts), "too many symbolic links")
            if found.target.startswith(b"/"):
                del trail[1:]
            todo += reversed(found.target.split(b"/"))
        return trail[-1]


def _step(parent: Inode, name: bytes, parts: Parts, make: bool) -> Inode:
    """Go to a directory or link `name` of `parent`."""
    names = parent.children
    assert names is not None
    found = names.get(name)
    if found is None:
        if not make:
            raise FileNotFoundError(2, "No such file or directory")
        check_name(name)
        found = names[name] = new_directory()
    elif found.is_whiteout and make:
        found = names[name] = new_directory()
        found.hide_below()
    elif found.children is None and not stat.S_ISLNK(found.mode):
        raise MalformedLayer(b"/".join(parts), "it is used as a directory but is none")
    return found


def check_name(name: bytes) -> None:
    """Refuse what no file system takes for a name."""
    if len(name) > 255:
        raise MalformedLayer(name, "File name too long")
