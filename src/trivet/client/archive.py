"""Tar streams for `cp`: pack a file tree, unpack one that an instance (which may be hostile) made.

Unpacking walks every path from the target's own descriptor with O_NOFOLLOW, so that neither `..` nor
a link, be it from the archive or swapped in meanwhile, leads out of the target. Nothing is followed,
set-id bits are dropped, devices are skipped.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from trivet.base.error import Corrupt
from trivet.client.connection import Writer

PIECE = 256 << 10
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Reader(Protocol):
    """Where a tar is read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes; fewer only at the end."""


@contextmanager
def tar_writer(writer: Writer) -> Iterator[tarfile.TarFile]:
    """Open a tar stream onto `writer`."""
    with tarfile.open(mode="w|", fileobj=_stream(writer), format=tarfile.PAX_FORMAT, bufsize=PIECE) as archive:
        yield archive


def pack(source: Path, name: str, writer: Writer, *, keep_owner: bool = False, follow: bool = False) -> None:
    """Write `source` and what is below it as a tar whose entries begin with `name`."""

    def adjust(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        if not keep_owner:
            entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tar_writer(writer) as archive:
        top = source.resolve() if follow else source
        archive.add(top, arcname=name, filter=adjust)


def unpack(source: Reader, directory: Path, rename: str, *, keep_owner: bool = False, top: bool = True) -> list[str]:
    """Unpack a tar into `directory`, its first path component replaced by `rename` ("": left out).

    With `top` False the entries have no such component, and keep their names.

    Returns what was skipped because it is a device. Raises `Corrupt` for an entry that tries to leave.
    """
    skipped = []
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tarfile.open(mode="r|", fileobj=_stream(source), bufsize=PIECE) as archive:
            for entry in archive:
                parts = _parts(entry.name, rename, top)
                if entry.isdev() and not entry.isfifo():
                    skipped.append(entry.name)
                elif parts:
                    _extract(archive, entry, descriptor, parts, _Naming(rename, top), keep_owner)
    except tarfile.TarError as error:
        raise Corrupt(f"the archive cannot be read: {error}") from error
    finally:
        os.close(descriptor)
    return skipped


class _Naming(NamedTuple):
    rename: str
    top: bool


def _parts(name: str, rename: str, top: bool) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or name.startswith("/"):
        raise Corrupt(f"the archive holds an entry that leads out of it: {name!r}")
    return ([rename] if rename else []) + parts[1 if top else 0 :]


def _extract(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, top: int, parts: list[str], naming: _Naming, keep_owner: bool
) -> None:
    with _parent(top, parts) as parent:
        name = parts[-1]
        _make_room(parent, name, directory=entry.isdir())
        if entry.isdir():
            _make_directory(parent, name)
            with _opened(name, DIRECTORY, parent) as made:
                _restore(entry, made, keep_owner)
        elif entry.isreg():
            with _opened(name, NEW_FILE, parent) as made:
                _write(archive.extractfile(entry), made)
                _restore(entry, made, keep_owner)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.isfifo():
            os.mkfifo(name, entry.mode & 0o777, dir_fd=parent)
        elif entry.islnk():
            target = _parts(entry.linkname, *naming)
            with _parent(top, target) as other:
                os.link(target[-1], name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)


@contextmanager
def _opened(name: str, flags: int, parent: int) -> Iterator[int]:
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _parent(top: int, parts: list[str]) -> Iterator[int]:
    """Open the directory that holds `parts`, making what is missing on the way."""
    current = os.dup(top)
    try:
        for part in parts[:-1]:
            _make_directory(current, part)
            below = os.open(part, DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _make_directory(parent: int, name: str) -> None:
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        pass


def _make_room(parent: int, name: str, *, directory: bool) -> None:
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode) and directory:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "a directory is in the way", name)
    os.unlink(name, dir_fd=parent)


def _write(content: IO[bytes] | None, descriptor: int) -> None:
    while content is not None and (data := memoryview(content.read(PIECE))):
        while data:
            data = data[os.write(descriptor, data) :]


def _restore(entry: tarfile.TarInfo, descriptor: int, keep_owner: bool) -> None:
    """Set owner, mode and time through the descriptor: the name may mean something else by now."""
    if keep_owner and os.geteuid() == 0:
        os.fchown(descriptor, entry.uid, entry.gid)
    bits = entry.mode & (0o7777 if keep_owner else 0o777)
    os.fchmod(descriptor, bits | (0o700 if entry.isdir() else 0))
    os.utime(descriptor, (entry.mtime, entry.mtime))


def _stream(pipe: object) -> IO[bytes]:
    return pipe  # type: ignore[return-value]  # tarfile's streams need read or write, nothing else
