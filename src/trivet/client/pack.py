"""Directories to tar streams, for builds: small enough that a command which changes nothing doesn't wait for `tarfile`.

ustar, with PAX records for what doesn't fit (pax(1)): long names and links, sizes from 8 GiB, times before 1970.
Everything belongs to root; a further name of a file is a hard link, as it is on disk. Times are in whole seconds: no
build looks closer, and a record for each file would double what is sent of a small one.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from trivet.client.connection import Writer

PIECE = 256 << 10
BLOCK = 512
_LONGEST = 100  # bytes of a name in a header
_LARGEST = 8 << 30
_FILE, _HARD_LINK, _SYMLINK, _DIRECTORY, _EXTENSION = b"0", b"1", b"2", b"5", b"x"
_TYPES = {
    stat.S_IFREG: _FILE,
    stat.S_IFLNK: _SYMLINK,
    stat.S_IFDIR: _DIRECTORY,
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFIFO: b"6",
}


class Packer:
    """Writes one tar. Context manager: its end is written unless something went wrong."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._pending = bytearray()
        self._names: dict[tuple[int, int], bytes] = {}

    def __enter__(self) -> Packer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._put(bytes(2 * BLOCK))
            self._flush()

    def add(self, path: str, name: str) -> None:
        """Add the file at `path`, without what is below it; a socket is left out."""
        found, raw = os.lstat(path), os.fsencode(name)
        kind = _TYPES.get(stat.S_IFMT(found.st_mode))
        if kind == _FILE:
            if found.st_nlink > 1 and (first := self._names.setdefault((found.st_dev, found.st_ino), raw)) != raw:
                self._put(_headers(raw, _HARD_LINK, found, first))
            else:
                self._file(path, raw)
        elif kind is not None:
            link = os.fsencode(os.readlink(path)) if kind == _SYMLINK else b""
            self._put(_headers(raw + b"/" if kind == _DIRECTORY else raw, kind, found, link))

    def text(self, name: str, content: bytes) -> None:
        """Add a file of our own."""
        self._put(_header(os.fsencode(name), _FILE, size=len(content)) + content + bytes(-len(content) % BLOCK))

    def _file(self, path: str, name: bytes) -> None:
        """Add a file with the size it has when it is opened. Raises OSError when it shrinks."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            self._put(_headers(name, _FILE, found, size=found.st_size))
            left = found.st_size
            while left:
                data = os.read(descriptor, min(left, PIECE))
                if not data:
                    raise OSError(0, "it became shorter while it was read", path)
                self._put(data)
                left -= len(data)
            self._put(bytes(-found.st_size % BLOCK))
        finally:
            os.close(descriptor)

    def _put(self, data: bytes) -> None:
        """Gather small pieces: each write is a system call."""
        self._pending += data
        if len(self._pending) >= PIECE:
            self._flush()

    def _flush(self) -> None:
        data, self._pending = bytes(self._pending), bytearray()
        self._writer.write(data)


def _headers(name: bytes, kind: bytes, found: os.stat_result, link: bytes = b"", *, size: int = 0) -> bytes:
    """Make an entry's header, with one of records in front where it needs them."""
    records = b""
    if len(name) > _LONGEST:
        records += _record(b"path", name)
    if len(link) > _LONGEST:
        records += _record(b"linkpath", link)
    if size >= _LARGEST:
        records += _record(b"size", b"%d" % size)
    seconds = found.st_mtime_ns // 10**9
    if not 0 <= seconds < _LARGEST:
        records += _record(b"mtime", b"%d" % seconds)
    device = found.st_rdev if kind in (b"3", b"4") else 0
    header = _header(name, kind, found.st_mode & 0o7777, size, seconds, link, device)
    if not records:
        return header
    return _header(b"records", _EXTENSION, size=len(records)) + records + bytes(-len(records) % BLOCK) + header


def _header(
    name: bytes, kind: bytes, mode: int = 0o644, size: int = 0, seconds: int = 0, link: bytes = b"", device: int = 0
) -> bytes:
    fields = (
        name[:_LONGEST].ljust(_LONGEST, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,  # root's
        b"%011o\0" % (size if size < _LARGEST else 0),
        b"%011o\0" % (seconds if 0 <= seconds < _LARGEST else 0),
        b" " * 8,  # the sum, counted as blanks
        kind,
        link[:_LONGEST].ljust(_LONGEST, b"\0"),
        b"ustar\x0000" + bytes(64),
        b"%07o\0%07o\0" % (os.major(device), os.minor(device)),
        bytes(167),
    )
    header = b"".join(fields)
    return b"%b%06o\0 %b" % (header[:148], sum(header), header[156:])


def _record(key: bytes, value: bytes) -> bytes:
    """Make a PAX record, `LENGTH KEY=VALUE`, whose length counts its own digits."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)
