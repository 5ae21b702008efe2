"""Writing EROFS: contents first, as they come, then everything about them, then the superblock.

    block 0 (superblock at 1024) │ contents, each from a block of its own │ large directories │ inodes

Contents may also be in other files, the devices, which a table between superblock and directories lists. All blocks are
counted in one row then: those of the image itself first, from `FAR` on those of its devices.

Blocks have 4096 bytes, which every kernel with EROFS reads. Inodes are extended ones, 64 bytes, followed by their
attributes and, where it fits in the block, a directory's or link's own data (Linux, fs/erofs/erofs_fs.h and
Documentation/filesystems/erofs.rst).
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from trivet.engine.snapshot.inode import Inode
from trivet.engine.snapshot.stream import BudgetExceeded
from trivet.engine.snapshot.tar import Entry, Reader
from trivet.engine.snapshot.tree import MalformedLayer

BLOCK, BITS = 4096, 12
SLOT = 32  # inodes are numbered by where they are, in slots
MAGIC = 0xE0F5E1E2
FIRST = 2 * SLOT  # inode number 0 means "no file" to readdir(3)
FAR = 1 << 20  # blocks: an image whose contents are elsewhere is smaller than 4 GiB

_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHH42x")
_DEVICE = struct.Struct("<64sII56x")
_DEVICE_TABLE = 8  # of what a kernel has to know (feature_incompat)
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_DIRENT = struct.Struct("<QHBB")
_ZEROS = bytes(BLOCK)
_TABLE_AT = 1024 + _DEVICE.size  # behind the superblock
_PLAIN, _INLINE = 0, 2
_EXTENDED = 1

_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFLNK: 7,
}
_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)


class ErofsWriter:
    """Writes one image file. Context manager; the file is complete when `finish` has returned.

    `devices` are the sizes of other files with contents, in blocks; `device_starts` tells where in the row they begin.
    """

    def __init__(self, path: Path, devices: Sequence[int] = ()) -> None:
        self._path = path
        self._devices = devices
        if FAR + sum(devices) >= 1 << 32:
            raise BudgetExceeded("blocks of 4096 bytes", 1 << 32)
        raw = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = cast(io.BufferedWriter, os.fdopen(raw, "wb", 1 << 20))
        self._at = -(-(_TABLE_AT + len(devices) * _DEVICE.size) // BLOCK) * BLOCK if devices else BLOCK
        self._file.write(bytes(self._at))

    def __enter__(self) -> ErofsWriter:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None:
            self._file.close()
            return
        with suppress(OSError):  # it would try to write what it couldn't
            self._file.close()

    def store(self, entry: Entry, reader: Reader) -> int:
        """Write a file's content; return the block it begins at. Holes stay holes."""
        start = self._at
        end = start + -(-entry.size // BLOCK) * BLOCK
        if end >> BITS >= 1 << 32:
            raise BudgetExceeded("blocks of 4096 bytes", 1 << 32)
        if entry.sparse is None:
            reader.copy(entry.size, self._file.write)
            self._file.write(_ZEROS[: end - start - entry.size])
        else:
            for offset, length in entry.sparse:
                self._file.seek(start + offset)
                reader.copy(length, self._file.write)
            self._file.seek(end)
        self._at = end
        return start >> BITS

    def append(self, file: Path, blocks: int) -> int:
        """Copy a file's blocks but its first; return by how much their numbers have grown."""
        start, end = self._at, blocks * BLOCK
        self._file.flush()
        with file.open("rb") as source:
            for at, stop in _pieces(source.fileno(), BLOCK, end):
                place = at
                while place < stop:
                    where = start + place - BLOCK
                    copied = os.copy_file_range(source.fileno(), self._file.fileno(), stop - place, place, where)
                    if not copied:
                        raise OSError(errno.EIO, "it is shorter than it was", str(file))
                    place += copied
        self._at = start + end - BLOCK
        self._file.seek(self._at)
        return (start >> BITS) - 1

    def end(self) -> int:
        """Leave it at contents, without a file system that shows them; return the number of blocks."""
        self._file.truncate(self._at)
        self._file.flush()
        return self._at >> BITS

    def finish(self, root: Inode) -> int:
        """Write the inodes of a tree, and the superblock; return how many blocks the contents take."""
        contents = self._at >> BITS
        inodes = _Inodes(self._at >> BITS)
        inodes.place(root)
        inode_area = inodes.serialize()
        for block in inodes.blocks:
            self._file.write(block)
        self._file.write(inode_area)
        blocks = (self._at >> BITS) + len(inodes.blocks) + len(inode_area) // BLOCK
        self._file.truncate(blocks * BLOCK)
        meta = (self._at >> BITS) + len(inodes.blocks)
        if self._devices and blocks > FAR:
            raise BudgetExceeded("blocks of 4096 bytes without contents", FAR)
        self._file.seek(1024)
        self._file.write(
            _SUPERBLOCK.pack(
                *(MAGIC, 0, 0, BITS, 0, FIRST // SLOT, inodes.count, 0, 0, blocks, meta, 0, bytes(16), bytes(16)),
                *(_DEVICE_TABLE if self._devices else 0, 0, len(self._devices)),
                _TABLE_AT // _DEVICE.size if self._devices else 0,
            )
        )
        if self._devices:
            self._file.seek(_TABLE_AT)
            for size, start in zip(self._devices, device_starts(self._devices), strict=True):
                self._file.write(_DEVICE.pack(b"", size, start))
        self._file.flush()
        return contents


def _pieces(file: int, at: int, end: int) -> Iterator[tuple[int, int]]:
    """List from where to where a file has data, and no hole, between two places."""
    while at < end:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            raise
        stop = min(os.lseek(file, at, os.SEEK_HOLE), end)
        if at < stop:
            yield at, stop
        at = stop


def device_starts(devices: Sequence[int]) -> list[int]:
    """Tell where the first block of each device is in the row of all blocks."""
    return [FAR + sum(devices[:index]) for index in range(len(devices))]


class _Placed:
    """An inode, where it goes, and what of its data goes elsewhere."""

    __slots__ = ("at", "attributes", "block", "inline", "inode", "parent", "size")

    def __init__(self, inode: Inode, parent: int) -> None:
        self.inode = inode
        self.parent = parent
        self.attributes = _attributes(inode.xattrs)
        self.size = _directory_size(inode.children) if inode.children is not None else inode.size
        self.inline = 0
        self.block = inode.block
        self.at = 0


class _Inodes:
    """The inode area: first every inode gets its place, then directories can name them."""

    def __init__(self, first_block: int) -> None:
        self.blocks: list[bytes] = []
        self.count = 0
        self._first_block = first_block
        self._placed: list[_Placed] = []
        self._number: dict[int, int] = {}
        self._at = FIRST

    def place(self, root: Inode) -> None:
        """Give every inode its place, parents before children."""
        self._add(root, 0)
        self._placed[0].parent = self._placed[0].at // SLOT
        for placed in self._placed:  # grows on the way
            number = placed.at // SLOT
            for child in (placed.inode.children or {}).values():
                if id(child) not in self._number:
                    self._add(child, number)

    def serialize(self) -> bytes:
        """Return the inode area, whole blocks; `blocks` holds what doesn't fit in it then."""
        area = bytearray(-(-self._at // BLOCK) * BLOCK)
        for placed in self._placed:
            data = self._data(placed)
            layout = _PLAIN
            if data:
                inline = len(data) - placed.inline
                placed.block = self._first_block + len(self.blocks)
                for at in range(0, inline, BLOCK):
                    self.blocks.append(data[at : min(at + BLOCK, inline)].ljust(BLOCK, b"\0"))
                if placed.inline:
                    layout = _INLINE
            body = _pack(placed, layout) + placed.attributes + (data[len(data) - placed.inline :] if data else b"")
            area[placed.at : placed.at + len(body)] = body
        return bytes(area)

    def _add(self, inode: Inode, parent: int) -> None:
        placed = _Placed(inode, parent)
        head = _INODE.size + len(placed.attributes)
        if inode.children is not None or inode.target:
            tail = placed.size % BLOCK
            if head + tail <= BLOCK:
                placed.inline = tail
        needed = head + placed.inline
        if placed.inline and self._at % BLOCK + needed > BLOCK:
            self._at = -(-self._at // BLOCK) * BLOCK
        placed.at = self._at
        self._number[id(inode)] = placed.at // SLOT
        self._at += -(-needed // SLOT) * SLOT
        self._placed.append(placed)
        self.count += 1

    def _data(self, placed: _Placed) -> bytes:
        """Return what a directory or a link consists of; nothing for others."""
        inode = placed.inode
        if inode.children is None:
            return inode.target
        named = [(name, self._number[id(child)], child.mode) for name, child in inode.children.items()]
        named += [(b".", placed.at // SLOT, inode.mode), (b"..", placed.parent, stat.S_IFDIR)]
        named.sort()
        data = b""
        for group in _grouped(named):
            data = data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0") + _dirents(group)
        return data


def _pack(placed: _Placed, layout: int) -> bytes:
    inode = placed.inode
    links = inode.links
    place = placed.block
    if inode.children is not None:
        links = 2 + sum(child.children is not None for child in inode.children.values())
    elif stat.S_ISCHR(inode.mode) or stat.S_ISBLK(inode.mode):
        place = _encoded_device(inode.device)
    seconds, fraction = divmod(inode.mtime_ns, 1_000_000_000)
    count = (len(placed.attributes) - 12) // 4 + 1 if placed.attributes else 0
    number = (placed.at // SLOT) & 0xFFFFFFFF
    return _INODE.pack(
        _EXTENDED | layout << 1,
        count,
        inode.mode,
        0,
        placed.size,
        place,
        number,
        inode.uid,
        inode.gid,
        seconds,
        fraction,
        links,
    )


def _encoded_device(device: int) -> int:
    """Encode a device number as the kernel's new_encode_dev does."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def _grouped(named: list[tuple[bytes, int, int]]) -> list[list[tuple[bytes, int, int]]]:
    """Split a directory's sorted entries into what fits a block."""
    groups: list[list[tuple[bytes, int, int]]] = [[]]
    room = BLOCK
    for each in named:
        room -= _DIRENT.size + len(each[0])
        if room < 0:
            groups.append([])
            room = BLOCK - _DIRENT.size - len(each[0])
        groups[-1].append(each)
    return groups


def _dirents(group: list[tuple[bytes, int, int]]) -> bytes:
    """Write one block's entries: the fixed parts, then the names."""
    place = len(group) * _DIRENT.size
    heads, names = [], []
    for name, number, mode in group:
        heads.append(_DIRENT.pack(number, place, _TYPES[stat.S_IFMT(mode)], 0))
        names.append(name)
        place += len(name)
    return b"".join(heads + names)


def _directory_size(children: dict[bytes, Inode]) -> int:
    groups = _grouped(sorted((name, 0, 0) for name in (*children, b".", b"..")))
    return (len(groups) - 1) * BLOCK + sum(_DIRENT.size + len(name) for name, _, _ in groups[-1])


def _attributes(xattrs: dict[bytes, bytes]) -> bytes:
    """Write attributes the way they follow an inode; those outside the known name spaces are left out."""
    entries = b""
    for key, value in sorted(xattrs.items()):
        for prefix, kind in _PREFIXES:
            if key.startswith(prefix):
                name = key.removeprefix(prefix)
                if len(name) > 255 or len(value) > 0xFFFF:
                    raise MalformedLayer(key, "the attribute is too large")
                entry = struct.pack("<BBH", len(name), kind, len(value)) + name + value
                entries += entry.ljust(-(-len(entry) // 4) * 4, b"\0")
                break
    if len(entries) > BLOCK * 16:
        raise MalformedLayer(b"xattr", "a file's attributes are larger than 64 KiB together")
    return bytes(12) + entries if entries else b""
