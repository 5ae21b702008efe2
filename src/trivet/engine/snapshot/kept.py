"""A layer's tree on disk beside its contents, so that it can be stacked with others and nobody walks it again.

The rows are in the order of a walk, parents first, each naming its parent's number; msgpack. However deep a hostile
layer is, nothing here calls itself.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from trivet.base.error import Corrupt
from trivet.engine.snapshot.inode import Inode


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A name. With `same` it is another name of that row's file, and the rest says nothing."""

    parent: int
    name: bytes
    same: int = -1
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    block: int = 0
    device: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = {}
    directory: bool = False


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A layer: how many blocks its file of contents has, and its tree. The first row is the root."""

    blocks: int
    rows: list[Row]


class BrokenTree(Corrupt):
    """A tree file that isn't what was written."""

    def __init__(self, file: Path, problem: object) -> None:
        super().__init__(f"{file} is damaged: {problem}", hint="remove the image and pull it again")


def keep(file: Path, root: Inode, blocks: int) -> None:
    """Write a tree, and how many blocks its contents take."""
    rows = [_row(0, b"", root)]
    pending = [(0, root)]
    seen: dict[int, int] = {}
    for number, directory in pending:  # grows on the way
        for name, child in (directory.children or {}).items():
            same = seen.get(id(child), -1)
            if same >= 0:
                rows.append(Row(number, name, same))
                continue
            if child.children is not None:
                pending.append((len(rows), child))
            elif child.links > 1:
                seen[id(child)] = len(rows)
            rows.append(_row(number, name, child))
    file.write_bytes(msgspec.msgpack.encode(Kept(blocks, rows)))


def read(file: Path) -> tuple[Inode, int]:
    """Read a tree, and how many blocks its contents take. Raises `BrokenTree`."""
    try:
        kept = msgspec.msgpack.decode(file.read_bytes(), type=Kept)
        made: list[Inode] = []
        for row in kept.rows:
            inode = made[row.same] if row.same >= 0 else _inode(row)
            inode.links += row.same >= 0
            if made:
                names = made[row.parent].children
                assert names is not None
                names[row.name] = inode
            made.append(inode)
        return made[0], kept.blocks
    except (msgspec.DecodeError, IndexError, AssertionError) as error:
        raise BrokenTree(file, error) from error


def _row(parent: int, name: bytes, inode: Inode) -> Row:
    return Row(
        parent,
        name,
        -1,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.mtime_ns,
        inode.size,
        inode.block,
        inode.device,
        inode.target,
        inode.xattrs,
        inode.children is not None,
    )


def _inode(row: Row) -> Inode:
    return Inode(
        mode=row.mode,
        uid=row.uid,
        gid=row.gid,
        mtime_ns=row.mtime_ns,
        size=row.size,
        block=row.block,
        device=row.device,
        target=row.target,
        xattrs=row.xattrs,
        children={} if row.directory else None,
    )
