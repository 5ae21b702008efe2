"""Writing tar streams: the same tree gives the same bytes.

ustar headers, PAX records for what doesn't fit, times in whole seconds, numeric owners only, entries in
the order they are given. Overlayfs's own marks become the image format's: whiteouts and opaque markers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from trivet.base.error import Unsupported
from trivet.engine.snapshot import tar
from trivet.engine.snapshot.admission import OPAQUE_MARK, OVERLAY_XATTRS, WHITEOUT
from trivet.engine.snapshot.tree import is_whiteout
from trivet.engine.snapshot.walk import Node
from trivet.kernel.overlay import OPAQUE

CHUNK = 1 << 20
NOTHING: Mapping[bytes, bytes] = MappingProxyType({})
_UNREADABLE = (b"trusted.overlay.redirect", b"trusted.overlay.metacopy")

Write = Callable[[bytes], object]


class UnreadableOverlay(Unsupported):
    """A file whose content lies elsewhere: overlayfs was mounted with redirect_dir or metacopy."""

    def __init__(self, path: bytes, attribute: bytes) -> None:
        super().__init__(f"cannot read {os.fsdecode(path)} from its overlay: it carries {attribute.decode()}")


class Packer:
    """Writes a tar stream. `epoch` is the youngest time a file may have (SOURCE_DATE_EPOCH).

    With `faithful` times keep their nanoseconds and sparse files their holes, as a backup needs it and an
    image doesn't. With `flat` it isn't a layer but all there is, in which a directory that hid others needs no mark.
    """

    def __init__(self, write: Write, *, epoch: int | None = None, faithful: bool = False, flat: bool = False) -> None:
        self.write = write
        self._epoch = epoch
        self._faithful = faithful
        self._flat = flat
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
                return self.hard_link(node, first)
        return self._whole(node, kind)

    def whole(self, node: Node) -> int:
        """Write one file of a walk, whatever other names it has."""
        kind = _TYPES.get(stat.S_IFMT(node.state.st_mode))
        return self._whole(node, kind) if kind else 0

    def hard_link(self, node: Node, first: bytes) -> int:
        """Write a further name of a file."""
        self._stat_header(node.path, tar.HARD_LINK, node.state, link=first)
        return 1

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
        extra: Mapping[bytes, bytes] = NOTHING,
    ) -> None:
        """Write an entry's header, with a PAX header before it if something doesn't fit, or for `extra` records."""
        if self._epoch is not None:
            mtime = min(mtime, self._epoch)
        pax = {**extra, **{b"SCHILY.xattr." + key: value for key, value in (xattrs or {}).items()}}
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
            if xattrs.get(OPAQUE.encode()) == b"y" and not self._flat:
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
        extra: Mapping[bytes, bytes] = NOTHING,
    ) -> None:
        device = (0, 0)
        if kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            device = (os.major(state.st_rdev), os.minor(state.st_rdev))
        mtime, fraction = divmod(state.st_mtime_ns, 1_000_000_000)
        if self._faithful and fraction and mtime >= 0:
            extra = {**extra, b"mtime": b"%d.%09d" % (mtime, fraction)}
        about = {"mode": stat.S_IMODE(state.st_mode), "uid": state.st_uid, "gid": state.st_gid, "mtime": mtime}
        self.header(name, kind, size=size, link=link, device=device, xattrs=xattrs, extra=extra, **about)

    def _content(self, node: Node, xattrs: dict[bytes, bytes]) -> None:
        """Write a regular file; one that shrinks meanwhile is filled up with zeros, one that grows is cut."""
        descriptor = node.open()
        try:
            state = os.fstat(descriptor)
            if self._faithful and state.st_blocks * 512 < state.st_size:
                self._sparse(node.path, descriptor, state, xattrs)
                return
            self._stat_header(node.path, tar.FILE, state, size=state.st_size, xattrs=xattrs)
            self._copy(descriptor, state.st_size)
            self.pad(state.st_size)
        finally:
            os.close(descriptor)

    def _sparse(self, path: bytes, descriptor: int, state: os.stat_result, xattrs: dict[bytes, bytes]) -> None:
        """Write a file with holes: GNU's format 1.0, a map before the data (GNU tar manual)."""
        pieces = [*data_pieces(descriptor, state.st_size), (state.st_size, 0)]
        numbers = (len(pieces), *(number for piece in pieces for number in piece))
        text = b"".join(b"%d\n" % number for number in numbers)
        text += bytes(-len(text) % tar.BLOCK)
        size = len(text) + sum(length for _, length in pieces)
        extra = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": path}
        extra[b"GNU.sparse.realsize"] = b"%d" % state.st_size
        self._stat_header(path, tar.FILE, state, size=size, xattrs=xattrs, extra=extra)
        self.write(text)
        for offset, length in pieces:
            os.lseek(descriptor, offset, os.SEEK_SET)
            self._copy(descriptor, length)
        self.pad(size)

    def _copy(self, descriptor: int, left: int) -> None:
        while left:
            piece = os.read(descriptor, min(CHUNK, left)) or bytes(min(CHUNK, left))
            self.write(piece)
            left -= len(piece)


def data_pieces(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """List where a file holds data: offset and length of each piece (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        if begin < end:
            yield begin, end - begin


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
