"""Files into and out of a step's root, by tasks of the launcher.

A task mounts the root in a mount namespace of its own, where nobody else sees it, and runs one of
the launcher's builtins on it: paths are resolved inside the root by the kernel, whatever links the
image holds, and nothing of the image is executed.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec

from trivet.build.error import BuildError
from trivet.build.placement import Placement
from trivet.build.spool import Spool
from trivet.build.tarball import write_tar
from trivet.build.tree import MOST_LINKS, Tree
from trivet.isolation.plan import Root as RootFileSystem
from trivet.kernel import overlay
from trivet.launch.operation import Builtin, Directory, Mount, Operation, Propagation, Root, Umask, Unshare
from trivet.launch.spawn import Completed, LaunchError, run
from trivet.runtime.mount import PROPAGATION

CLONE_NEWNS = 0x20000
_NOT_FOUND = 44  # exit status of the builtins
_IN_THE_WAY = "a file of the image is where a directory is needed"


class _Stat(msgspec.Struct, frozen=True):
    mode: int
    size: int
    link: str


class TransferFailed(BuildError):
    """Files that could not be written to, or read from, the image."""


class Transfer:
    """One root file system, reachable for copying. `point` is an empty directory to mount it at."""

    def __init__(self, root: RootFileSystem, point: Path) -> None:
        self._root = root
        self._point = point

    def make_directory(self, path: str) -> None:
        """Make a directory of the image, and its parents; one that is there is left alone."""
        self._run([Directory(path)], None)

    def is_directory(self, path: str) -> bool:
        """Tell whether a path of the image is a directory, or a link to one."""
        try:
            found = self._stat(f"{path}/")
        except TransferFailed:  # a file is in the way
            return False
        return found is not None and stat.S_ISDIR(found.mode)

    def real(self, path: str) -> str | None:
        """Follow the links that `path` may end in; None if it leads nowhere."""
        for _ in range(MOST_LINKS):
            found = self._stat(path)
            if found is None:
                return None
            if not stat.S_ISLNK(found.mode):
                return path
            path = posixpath.join(posixpath.dirname(path), found.link)
        raise TransferFailed(f"too many links in {path}")

    def write(
        self, directory: str, placements: Sequence[Placement], spool: Spool, owner: tuple[int, int] = (0, 0)
    ) -> None:
        """Write files below a directory, which is made, for `owner`, if it isn't there."""
        reading, writing = os.pipe()

        def feed() -> None:
            try:
                write_tar(placements, spool, writing)
            except BrokenPipeError:
                pass  # the task has ended, and says why
            finally:
                os.close(writing)

        with ThreadPoolExecutor(1) as pool:
            fed = pool.submit(feed)
            try:
                self._run([Directory(directory, 0o755, *owner)], Builtin("archive-write", (directory,)), source=reading)
            finally:
                os.close(reading)
        fed.result()

    def read(self, path: str, spool: Spool, name: str) -> Tree:
        """Read a path of the image, and everything below it, into a tree."""
        reading, writing = os.pipe()

        def produce() -> None:
            try:
                self._run([], Builtin("archive-read", (path,)), target=writing)
            finally:
                os.close(writing)

        with ThreadPoolExecutor(1) as pool:
            produced = pool.submit(produce)
            with os.fdopen(reading, "rb") as file:
                try:
                    return spool.take(file, name, devices=True)
                except BuildError:
                    file.close()  # before its writer is waited for
                    produced.result()  # its failure, if there is one, is the reason
                    raise

    def small_file(self, path: str, spool: Spool, limit: int) -> bytes:
        """Read a regular file of the image; empty when it isn't one, isn't there, or is larger than `limit`."""
        real = self.real(path)
        found = self._stat(real) if real is not None else None
        if real is None or found is None or not stat.S_ISREG(found.mode) or found.size > limit:
            return b""
        tree = self.read(real, spool, path)
        return spool.read(tree.nodes[tree.children("")[0]], limit)

    def _stat(self, path: str) -> _Stat | None:
        done = self._run([], Builtin("stat", (path,)), missing=True)
        return None if done.code == _NOT_FOUND else msgspec.json.decode(done.output, type=_Stat)

    def _run(
        self,
        steps: list[Operation],
        builtin: Builtin | None,
        *,
        source: int | None = None,
        target: int | None = None,
        missing: bool = False,
    ) -> Completed:
        last: list[Operation] = [builtin] if builtin else []
        with _explained():
            done = run([*self._mounted(), *steps, *last], input=source, output=target)
        if done.code and not (missing and done.code == _NOT_FOUND):
            sentence = done.error_output.decode("utf-8", "replace").strip()
            hint = _IN_THE_WAY if sentence.endswith(os.strerror(errno.ENOTDIR)) else None
            raise TransferFailed(sentence or f"{builtin} ended with status {done.code}", hint=hint)
        return done

    def _mounted(self) -> list[Operation]:
        root = self._root
        layers = [f"lowerdir+={lower}" for lower in root.lowers]
        writable = [f"upperdir={root.upper}", f"workdir={root.work}", *overlay.OPTIONS]
        return [
            Unshare(CLONE_NEWNS),
            Propagation("/", PROPAGATION["rslave"]),
            Mount("overlay", "overlay", str(self._point), options=(*layers, *writable), host=1, make=0),
            Root(str(self._point)),
            Umask(0),
        ]


@contextmanager
def _explained() -> Iterator[None]:
    """Turn a failed operation into a sentence about the image."""
    try:
        yield
    except LaunchError as error:
        if not isinstance(error.operation, Directory):
            raise
        cause = os.strerror(error.errno).lower() if error.errno else error.text
        raise TransferFailed(f"cannot make directory {error.operation.path} in the image: {cause}") from error
