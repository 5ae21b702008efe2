"""Copying a directory of an image into a new volume.

The tree comes from an image, so it is hostile: every step goes from descriptor to descriptor, links are
copied as links and never followed, devices are left out. Owners, modes, times, extended attributes and
names of one file stay.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from trivet.engine.snapshot.pack import data_pieces

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PORTION = 1 << 24
# What overlay keeps about itself means nothing outside of it, and something else inside (SECURITY 27).
_PRIVATE = ("trusted.", "user.overlay.", "security.selinux")


def populate(source: Path, target: Path) -> None:
    """Copy the content of directory `source` into the empty directory `target`, which becomes like it."""
    with _opened(source, _DIRECTORY) as origin, _opened(target, _DIRECTORY) as copy:
        _Copy().directory(origin, copy)


class _Copy:
    """One copy under way: remembers where files with several names went."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], tuple[int, str]] = {}
        self._held: list[int] = []

    def directory(self, origin: int, copy: int) -> None:
        """Copy what is in an open directory, then what it is itself."""
        try:
            self._directory(origin, copy)
        finally:
            for descriptor in self._held:
                os.close(descriptor)

    def _directory(self, origin: int, copy: int) -> None:
        for name in os.listdir(origin):
            self._entry(origin, copy, name)
        take_over(os.fstat(origin), attributes(origin), copy)

    def _entry(self, origin: int, copy: int, name: str) -> None:
        info = os.stat(name, dir_fd=origin, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=copy)
            with _opened(name, _DIRECTORY, origin) as inner, _opened(name, _DIRECTORY, copy) as inner_copy:
                self._directory(inner, inner_copy)
        elif stat.S_ISREG(info.st_mode):
            self._file(origin, copy, name, info)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=origin), name, dir_fd=copy)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=copy, follow_symlinks=False)
        elif stat.S_ISFIFO(info.st_mode):
            os.mkfifo(name, stat.S_IMODE(info.st_mode), dir_fd=copy)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=copy, follow_symlinks=False)

    def _file(self, origin: int, copy: int, name: str, info: os.stat_result) -> None:
        first = self._links.get((info.st_dev, info.st_ino))
        if first:
            os.link(first[1], name, src_dir_fd=first[0], dst_dir_fd=copy, follow_symlinks=False)
            return
        with _opened(name, _READ, origin) as reading, _opened(name, _WRITE, copy) as writing:
            copy_content(reading, writing)
            take_over(info, attributes(reading), writing)
        if info.st_nlink > 1:
            self._held.append(os.dup(copy))
            self._links[info.st_dev, info.st_ino] = (self._held[-1], name)


@contextmanager
def _opened(path: str | Path, flags: int, directory: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def copy_content(reading: int, writing: int) -> None:
    """Let the kernel copy, sharing blocks where the file system can; holes stay holes."""
    size = os.fstat(reading).st_size
    for offset, length in data_pieces(reading, size):
        end = offset + length
        with suppress(OSError):  # EXDEV, EINVAL: not between these two file systems
            while offset < end and (done := os.copy_file_range(reading, writing, end - offset, offset, offset)):
                offset += done
        os.lseek(writing, offset, os.SEEK_SET)
        while offset < end and (done := os.sendfile(writing, reading, offset, min(end - offset, _PORTION))):
            offset += done
    os.ftruncate(writing, size)


def take_over(info: os.stat_result, xattrs: Mapping[str, bytes], copy: int) -> None:
    """Give a copy owner, mode, attributes and times; in this order, as a new owner clears set-user-ID."""
    os.fchown(copy, info.st_uid, info.st_gid)
    os.fchmod(copy, stat.S_IMODE(info.st_mode))
    for name, value in xattrs.items():
        os.setxattr(copy, name, value)
    os.utime(copy, ns=(info.st_atime_ns, info.st_mtime_ns))


def attributes(origin: int) -> dict[str, bytes]:
    """Read the extended attributes of an open file that mean something in a copy."""
    return {name: os.getxattr(origin, name) for name in os.listxattr(origin) if not name.startswith(_PRIVATE)}
