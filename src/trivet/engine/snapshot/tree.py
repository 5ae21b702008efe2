"""Directories below a root, opened one component at a time, so that no link in them leads outside.

Links on the way are resolved here, as if the root were `/`: `..` stops at the root and absolute targets
start from it. The tree must be private to the caller (SECURITY: unpack in a directory of one's own).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat

from trivet.base.error import Corrupt
from trivet.kernel.overlay import OPAQUE

MAXIMUM_LINKS = 40
CACHED = 128

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = tuple[bytes, ...]


class MalformedLayer(Corrupt):
    """A layer with an entry that makes no sense or wants out."""

    def __init__(self, name: bytes, problem: str) -> None:
        shown = name[:200].decode("utf-8", "backslashreplace")
        super().__init__(f"layer entry {shown!r} is refused: {problem}")


class Tree:
    """Hand out descriptors of directories below `root`; they stay valid until the next call. Context manager."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.open(root, _DIRECTORY)
        self._real: dict[Parts, int] = {}
        self._asked: dict[Parts, int] = {}

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *exception: object) -> None:
        self.forget()
        os.close(self._root)

    def directory(self, parts: Parts, *, make: bool = False) -> int:
        """Open a directory. Missing ones are made with `make`, else FileNotFoundError.

        Raises `MalformedLayer` where something that is no directory is in the way.
        """
        if not parts:
            return self._root
        found = self._asked.get(parts)
        if found is None:
            if len(self._real) > CACHED:
                self.forget()
            found = self._resolve(parts, make)
            self._asked[parts] = found
        return found

    def forget(self) -> None:
        """Close what is cached; needed when a directory or a link was removed or replaced."""
        for descriptor in self._real.values():
            os.close(descriptor)
        self._real.clear()
        self._asked.clear()

    def remove(self, parts: Parts) -> None:
        """Remove whatever is at `parts`, with everything below it."""
        parent, name = self.directory(parts[:-1]), parts[-1]
        mode = os.lstat(name, dir_fd=parent).st_mode
        if stat.S_ISDIR(mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self.forget()

    def _resolve(self, parts: Parts, make: bool) -> int:
        todo, links = list(reversed(parts)), 0
        real: list[bytes] = []
        while todo:
            name = todo.pop()
            if name == b"..":
                del real[-1:]
                continue
            if name in (b"", b"."):
                continue
            target = self._step(tuple(real), name, make)
            if target is None:
                real.append(name)
                continue
            links += 1
            if links > MAXIMUM_LINKS:
                raise MalformedLayer(b"/".join(parts), "too many symbolic links")
            if target.startswith(b"/"):
                real = []
            todo += reversed(target.split(b"/"))
        return self._open(tuple(real))

    def _open(self, real: Parts) -> int:
        """Open a path without links; what was open before is reused."""
        if not real:
            return self._root
        found = self._real.get(real)
        if found is None:
            found = os.open(real[-1], _DIRECTORY, dir_fd=self._open(real[:-1]))
            self._real[real] = found
        return found

    def _step(self, real: Parts, name: bytes, make: bool) -> bytes | None:
        """Make sure `name` is a directory; return the target if it is a link instead."""
        if (*real, name) in self._real:
            return None
        parent = self._open(real)
        try:
            self._real[*real, name] = os.open(name, _DIRECTORY, dir_fd=parent)
            return None
        except FileNotFoundError:
            if not make:
                raise
            make_directory(parent, name)
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
        state = os.lstat(name, dir_fd=parent)
        if stat.S_ISLNK(state.st_mode):
            return os.readlink(name, dir_fd=parent)
        if make and is_whiteout(state):
            os.unlink(name, dir_fd=parent)
            make_directory(parent, name, opaque=True)
            return None
        raise MalformedLayer(b"/".join((*real, name)), "it is used as a directory but is none")


def make_directory(parent: int, name: bytes, *, opaque: bool = False) -> None:
    """Make a directory root:root 0755, whatever the umask is."""
    os.mkdir(name, 0o755, dir_fd=parent)
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        os.fchmod(descriptor, 0o755)
        if opaque:
            os.setxattr(descriptor, OPAQUE, b"y")
    finally:
        os.close(descriptor)


def is_whiteout(state: os.stat_result) -> bool:
    """Tell overlayfs's mark for "deleted here": a character device 0:0."""
    return stat.S_ISCHR(state.st_mode) and state.st_rdev == 0
