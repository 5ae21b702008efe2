"""Writing tar streams: the same tree gives the same bytes.

ustar headers, PAX records for what doesn't fit, times in whole seconds, numeric owners only, entries in
the order they are given. Overlayfs's own marks become the image format's: whiteouts and opaque markers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

from trivet.base.error import Unsupported
from trivet.engine.snapshot import tar
from trivet.engine.snapshot.extract import OPAQUE_MARK, OVERLAY_XATTRS, WHITEOUT
from trivet.engine.snapshot.tree import OPAQUE, is_whiteout
from trivet.engine.snapshot.walk import Node

CHUNK = 1 << 20
_UNREADABLE = (b"trusted.overlay.redirect", b"trusted.overlay.metacopy")

Write = Callable[[bytes], object]


class UnreadableOverlay(Unsupported):
    """A file whose content lies elsewhere: overlayfs was mounted with redirect_dir or metacopy."""

    def __init__(self, path: bytes, attribute: bytes) -> None:
        super().__init__(f"cannot read {os.fsdecode(path)} from its overlay: it carries {attribute.decode()}")


class Packer:
    """Writes a tar stream. `epoch` is the youngest time a file may have (SOURCE_DATE_EPOCH)."""

    def __init__(self, write: Write, *, epoch: int | None = None) -> None:
        self.write = write
        self._epoch = epoch
        self._links: dict[tuple[int, int], bytes] = {}

    def tree(self, nodes: Iterable[Node]) -> int:
        """Write a walk's nodes; return how many entries that made."""
        return sum(self.node(node) for node in nodes)

    def node(self, node: Node) -> int:
        """Write one file of a walk; return the number of entries (sockets make none)."""
        state = node.state
        if is_whiteout(state):
            directory, slash, name = node.path.rpartition(b"/")
            self.header(directory + slash + WHITEOUT + name, tar.FILE, mode=0)
            return 1
        kind = _TYPES.get(stat.S_IFMT(state.st_mode))
        if kind is None:
            return 0
        if kind != tar.DIRECTORY and state.st_nlink > 1:
            first = self._links.setdefault((state.st_dev, state.st_ino), node.path)
            if first != node.path:
                self._stat_header(node.path, tar.HARD_LINK, state, link=first)
                return 1
        return self._whole(node, kind)

    def file(self, name: str, size: int, *, mode: int = 0o644) -> None:
        """Begin a file of our own; its `size` bytes follow through `data`."""
        self.header(name.encode(), tar.FILE, size=size, mode=mode)

    def directory(self, name: str) -> None:
        """Write a directory of our own."""
        self.header(name.rstrip("/").encode() + b"/", tar.DIRECTORY, mode=0o755)

    def data(self, data: bytes) -> None:
        """Write a whole file's content after its header."""
        self.write(data)
        self.pad(len(data))

    def pad(self, size: int) -> None:
        """Fill the last block of a file of `size` bytes."""
        if size % tar.BLOCK:
            self.write(bytes(-size % tar.BLOCK))

    def finish(self) -> None:
        """Write the end mark."""
        self.write(bytes(2 * tar.BLOCK))

    def header(
        self,
        name: bytes,
        kind: bytes,
        *,
        size: int = 0,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        """Write an entry's header, with a PAX header before it if something doesn't fit."""
        if self._epoch is not None:
            mtime = min(mtime, self._epoch)
        pax = {b"SCHILY.xattr." + key: value for key, value in (xattrs or {}).items()}
        short_name, short_link = _fitting(pax, b"path", name), _fitting(pax, b"linkpath", link)
        numbers = {b"uid": uid, b"gid": gid, b"size": size, b"mtime": mtime}
        for key, limit in _LIMITS.items():
            if not 0 <= numbers[key] < limit:
                pax[key] = b"%d" % numbers[key]
                numbers[key] = 0
        if pax:
            records = b"".join(_record(key, pax[key]) for key in sorted(pax))
            self.write(_block(b"PaxHeaders/" + short_name[-80:], b"x", 0o644, 0, 0, len(records), 0, b"", (0, 0)))
            self.data(records)
        uid, gid, size, mtime = numbers.values()
        self.write(_block(short_name, kind, mode, uid, gid, size, mtime, short_link, device))

    def _whole(self, node: Node, kind: bytes) -> int:
        xattrs = node.xattrs()
        for attribute in _UNREADABLE:
            if attribute in xattrs:
                raise UnreadableOverlay(node.path, attribute)
        kept = {key: value for key, value in xattrs.items() if not key.startswith(OVERLAY_XATTRS)}
        if kind == tar.DIRECTORY:
            self._stat_header(node.path + b"/", kind, node.state, xattrs=kept)
            if xattrs.get(OPAQUE.encode()) == b"y":
                self.header(node.path + b"/" + OPAQUE_MARK, tar.FILE, mode=0)
                return 2
        elif kind == tar.FILE:
            self._content(node, kept)
        else:
            link = node.link() if kind == tar.SYMLINK else b""
            self._stat_header(node.path, kind, node.state, link=link, xattrs=kept)
        return 1

    def _stat_header(
        self,
        name: bytes,
        kind: bytes,
        state: os.stat_result,
        *,
        link: bytes = b"",
        size: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        device = (0, 0)
        if kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            device = (os.major(state.st_rdev), os.minor(state.st_rdev))
        mtime = state.st_mtime_ns // 1_000_000_000
        mode = stat.S_IMODE(state.st_mode)
        ids = {"uid": state.st_uid, "gid": state.st_gid}
        self.header(name, kind, size=size, mode=mode, mtime=mtime, link=link, device=device, xattrs=xattrs, **ids)

    def _content(self, node: Node, xattrs: dict[bytes, bytes]) -> None:
        """Write a regular file; one that shrinks meanwhile is filled up with zeros, one that grows is cut."""
        descriptor = node.open()
        try:
            state = os.fstat(descriptor)
            self._stat_header(node.path, tar.FILE, state, size=state.st_size, xattrs=xattrs)
            left = state.st_size
            while left:
                piece = os.read(descriptor, min(CHUNK, left)) or bytes(min(CHUNK, left))
                self.write(piece)
                left -= len(piece)
            self.pad(state.st_size)
        finally:
            os.close(descriptor)


_TYPES = {
    stat.S_IFREG: tar.FILE,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}

# What the octal fields of a ustar header can hold.
_LIMITS = {b"uid": 1 << 21, b"gid": 1 << 21, b"size": 1 << 33, b"mtime": 1 << 33}


def _fitting(pax: dict[bytes, bytes], key: bytes, text: bytes) -> bytes:
    """Return what goes into the 100-byte field; longer texts, and those that aren't ASCII, go to PAX whole."""
    if len(text) > 100 or not text.isascii():
        pax[key] = text
    return text[:100]


def _record(key: bytes, value: bytes) -> bytes:
    """Spell a PAX record; its length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    if len(str(length)) > len(str(len(rest))):
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    header = bytearray(tar.BLOCK)
    header[0 : len(name)] = name
    header[100:124] = b"%07o\0%07o\0%07o\0" % (mode, uid, gid)
    header[124:148] = b"%011o\0%011o\0" % (size, mtime)
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[157 : 157 + len(link)] = link
    header[257:265] = b"ustar\x0000"
    header[329:345] = b"%07o\0%07o\0" % device
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
