"""Placements to a tar stream, for the launcher to unpack inside the step's root."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable

from trivet.build.placement import Placement
from trivet.build.spool import Spool
from trivet.build.tree import Kind, Node

_TYPES: dict[Kind, bytes] = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}
_BLOCK = 512


def write_tar(placements: Iterable[Placement], spool: Spool, descriptor: int) -> None:
    """Write the placements, in order, and the end mark. BrokenPipeError when nobody reads any more."""
    source = spool.descriptor()
    for each in placements:
        write_all(descriptor, header(each.path, each.node))
        if each.node.kind == "file":
            _send(descriptor, source, each.node)
            write_all(descriptor, bytes(-each.node.size % _BLOCK))
    write_all(descriptor, bytes(2 * _BLOCK))


def header(path: str, node: Node) -> bytes:
    """Build an entry's headers: ustar, with PAX records where that isn't enough."""
    info = tarfile.TarInfo(path)
    info.type = _TYPES[node.kind]
    info.mode, info.uid, info.gid = node.mode, node.uid, node.gid
    info.size = node.size if node.kind == "file" else 0
    info.mtime = node.mtime_ns // 10**9
    info.linkname = node.link
    info.devmajor, info.devminor = node.major, node.minor
    info.pax_headers = {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in node.xattrs}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, however little the pipe takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _send(descriptor: int, source: int, node: Node) -> None:
    offset, left = node.offset, node.size
    while left:
        sent = os.sendfile(descriptor, source, offset, min(left, 1 << 30))
        if not sent:
            raise EOFError("the spool is shorter than its index says")
        offset, left = offset + sent, left - sent
