"""Reading a tree that may change under us: by descriptors, never through a link, in a fixed order.

`changes` shows one directory as it is; `merged` shows a stack of them as overlayfs would, without a mount.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from trivet.base.error import Unsupported
from trivet.engine.snapshot.tree import MAXIMUM_LINKS, is_whiteout
from trivet.kernel.overlay import OPAQUE

MAXIMUM_DEPTH = 256
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A file met on the way: `path` below the root, and `name` in the open directory `parent` (for now)."""

    path: bytes
    parent: int
    name: bytes
    state: os.stat_result

    def xattrs(self) -> dict[bytes, bytes]:
        """Read the extended attributes; none where the file system has none."""
        place = b"/proc/self/fd/%d/%s" % (self.parent, self.name)
        try:
            keys = os.listxattr(place, follow_symlinks=False)
            return {os.fsencode(key): os.getxattr(place, key, follow_symlinks=False) for key in sorted(keys)}
        except OSError:
            return {}

    def link(self) -> bytes:
        """Read a symbolic link's target."""
        return os.readlink(self.name, dir_fd=self.parent)

    def open(self) -> int:
        """Open a regular file; OSError if it has become something else."""
        return os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.parent)


class TooDeep(Unsupported):
    """A tree with more levels than we follow."""

    def __init__(self, path: bytes) -> None:
        super().__init__(f"directory {os.fsdecode(path)[:100]}… is more than {MAXIMUM_DEPTH} levels deep")


def changes(directory: Path) -> Iterator[Node]:
    """Walk one directory, whiteouts included, names in byte order, directories before what is in them."""
    return _walk([directory], hide=False)


def merged(directories: Sequence[str | Path]) -> Iterator[Node]:
    """Walk the union of directories, topmost first, as overlayfs shows it."""
    return _walk([Path(directory) for directory in directories], hide=True)


def _walk(directories: Sequence[Path], *, hide: bool) -> Iterator[Node]:
    with ExitStack() as undo:
        descriptors = []
        for directory in directories:
            descriptors.append(os.open(directory, _DIRECTORY))
            undo.callback(os.close, descriptors[-1])
        yield from _level(descriptors, b"", 0, hide)


def _level(directories: list[int], prefix: bytes, depth: int, hide: bool) -> Iterator[Node]:
    if depth > MAXIMUM_DEPTH:
        raise TooDeep(prefix)
    owner: dict[bytes, int] = {}
    for index, directory in enumerate(directories):
        with os.scandir(directory) as entries:
            for entry in entries:
                owner.setdefault(os.fsencode(entry.name), index)
    for name in sorted(owner):
        index = owner[name]
        try:
            state = os.lstat(name, dir_fd=directories[index])
        except FileNotFoundError:
            continue  # gone since the directory was read
        if hide and is_whiteout(state):
            continue
        yield Node(path=prefix + name, parent=directories[index], name=name, state=state)
        if stat.S_ISDIR(state.st_mode):
            with ExitStack() as undo:
                below = _same_directory(directories[index:], name, undo)
                yield from _level(below, prefix + name + b"/", depth + 1, hide)


def _same_directory(directories: list[int], name: bytes, undo: ExitStack) -> list[int]:
    """Open `name` in each directory from the top down, as far as they show through."""
    opened = []
    for directory in directories:
        try:
            opened.append(os.open(name, _DIRECTORY, dir_fd=directory))
        except FileNotFoundError:
            continue
        except OSError:
            break  # a file or a whiteout hides what is below it
        undo.callback(os.close, opened[-1])
        if is_opaque(opened[-1]):
            break
    return opened


def is_opaque(directory: int | Path) -> bool:
    """Tell whether a directory hides the ones below it."""
    try:
        return os.getxattr(directory, OPAQUE) == b"y"
    except OSError:
        return False


def locate(layers: Sequence[str | Path], path: str) -> list[Path]:
    """Find the directories that overlayfs would show, merged, at `path`; topmost first, none if it is no directory.

    Links are followed as inside the image. For layers that nobody changes.
    """
    todo, links = list(reversed(path.split("/"))), 0
    trail: list[list[Path]] = [[Path(layer) for layer in layers]]
    while todo:
        name = todo.pop()
        if name == "..":
            del trail[max(len(trail) - 1, 1) :]
        elif name not in ("", "."):
            found, target = descend(trail[-1], name)
            links += target is not None
            if links > MAXIMUM_LINKS or not (found or target):
                return []
            if target is None:
                trail.append(found)
                continue
            del trail[1 if target.startswith("/") else len(trail) :]
            todo += reversed(target.split("/"))
    return trail[-1]


def descend(directories: list[Path], name: str) -> tuple[list[Path], str | None]:
    """Go one level down: the directories of that name that show through, or a link's target."""
    found: list[Path] = []
    for directory in directories:
        place = directory / name
        try:
            state = place.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(state.st_mode) and not found:
            return [], str(place.readlink())
        if not stat.S_ISDIR(state.st_mode):
            break
        found.append(place)
        if is_opaque(place):
            break
    return found, None
