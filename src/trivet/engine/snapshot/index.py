"""Indexing a layer: a hostile tar stream becomes one read-only EROFS file, and no file is made for any of its own.

What is found in the file system is what `extract` would have made on disk, entry by entry.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trivet.engine.snapshot import tar
from trivet.engine.snapshot.admission import AUFS, OPAQUE_MARK, WHITEOUT, Admission, safe_xattrs
from trivet.engine.snapshot.erofs import ErofsWriter
from trivet.engine.snapshot.inode import Inode, InodeTree, check_name, new_directory
from trivet.engine.snapshot.merge import drop_idle_whiteouts
from trivet.engine.snapshot.stream import Budget
from trivet.engine.snapshot.tar import Entry, Reader, Source
from trivet.engine.snapshot.tree import MalformedLayer, Parts
from trivet.store.content import explaining_full

MOST = 400_000  # entries that are held in memory; a layer with more of them is better unpacked
_MAXIMUM_LINK = 4095
_KINDS = {
    tar.FILE: stat.S_IFREG,
    tar.SYMLINK: stat.S_IFLNK,
    tar.FIFO: stat.S_IFIFO,
    tar.CHARACTER: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
}


class TooMany(Exception):
    """A layer with more entries than are held in memory."""


def index(source: Source, file: Path, *, budget: Budget, lowest: bool = True) -> tuple[Inode, int]:
    """Write a layer's contents to `file`; return its tree, and how many blocks the contents take.

    Of the lowest layer the file is a whole EROFS image. The tree of others has to be stacked on what is below.
    Raises `TooMany`, `MalformedTar`, `MalformedLayer`, `BudgetExceeded`, `StoreFull`; the file is for the caller to
    remove then.
    """
    with explaining_full(file), ErofsWriter(file) as writer:
        indexer = Indexer(writer, budget)
        reader = Reader(source)
        for entry in reader:
            indexer.apply(entry, reader)
        reader.drain()
        root = indexer.tree.root
        if not lowest:
            return root, writer.end()
        if indexer.whiteouts:
            drop_idle_whiteouts(root, [])
        return root, writer.finish(root)


class Indexer:
    """Applies entries one after the other to a tree in memory, and writes their content."""

    def __init__(self, writer: ErofsWriter, budget: Budget) -> None:
        self.tree = InodeTree()
        self.whiteouts = 0
        self._writer = writer
        self._admission = Admission(budget, whiteouts=True, devices=True)
        self._entries = 0
        self._directories = 0

    def apply(self, entry: Entry, reader: Reader) -> None:
        """Take one entry. A later entry replaces an earlier one of the same name."""
        self._entries += 1
        if self._entries > MOST:
            raise TooMany
        self._admission.account(entry)
        parts = self._admission.split(entry.name)
        if parts:
            check_name(parts[-1])
        try:
            if parts and parts[-1].startswith(WHITEOUT):
                self._whiteout(parts, entry)
            elif not parts or entry.type == tar.DIRECTORY:
                self._directory(parts, entry)
            else:
                self._put(parts, self._made(parts, entry, reader))
        except FileNotFoundError as error:
            raise MalformedLayer(entry.name, f"{error.strerror}") from error

    def _whiteout(self, parts: Parts, entry: Entry) -> None:
        base = parts[-1]
        if base == OPAQUE_MARK:
            self.tree.directory(parts[:-1], make=True).hide_below()
            return
        if base.startswith(AUFS):
            return
        name = self._admission.hidden(entry, base)
        names = self.tree.names(parts[:-1], make=True)
        found = names.get(name)
        if found is None:
            names[name] = Inode(mode=stat.S_IFCHR)
            self.whiteouts += 1
        elif found.children is not None:
            found.hide_below()

    def _directory(self, parts: Parts, entry: Entry) -> None:
        if entry.type != tar.DIRECTORY:
            raise MalformedLayer(entry.name, "the root can only be a directory")
        found: Inode | None = self.tree.root
        if parts:
            names = self.tree.names(parts[:-1], make=True)
            found = names.get(parts[-1])
            if found is None or found.children is None:
                made = new_directory()
                if found is not None and found.is_whiteout:
                    made.hide_below()
                self._put(parts, made)
                found = made
        assert found is not None
        opaque = found.is_opaque
        _dress(found, entry, stat.S_IFDIR)
        if opaque:
            found.hide_below()
        self._directories += 1
        self._admission.directories(self._directories)

    def _made(self, name: Parts, entry: Entry, reader: Reader) -> Inode:
        if entry.type == tar.HARD_LINK:
            found = self._linked(entry)
            if (replaced := self.tree.names(name[:-1], make=True).pop(name[-1], None)) is not None:
                self._gone(replaced)
                self.tree.names(name[:-1])  # the way there may have led through what is gone, and so may the target's
                found = self._linked(entry)
            found.links += 1
            return found
        kind = _KINDS.get(entry.type)
        if kind is None:
            raise MalformedLayer(entry.name, f"its type is {entry.type!r}")
        made = Inode(mode=kind)
        if entry.type == tar.FILE:
            made.block, made.size = self._writer.store(entry, reader), entry.size
        elif entry.type == tar.SYMLINK:
            if not 0 < len(entry.link) <= _MAXIMUM_LINK or b"\0" in entry.link:
                raise MalformedLayer(entry.name, "its target is empty or too long")
            made.target, made.size = entry.link, len(entry.link)
        elif entry.type != tar.FIFO:
            made.device = os.makedev(entry.major, entry.minor)
        _dress(made, entry, kind)
        return made

    def _linked(self, entry: Entry) -> Inode:
        parts = self._admission.split(entry.link)
        target = b"/".join(parts) or b"/"
        try:
            found = self.tree.names(parts[:-1])[parts[-1]] if parts else self.tree.root
        except (KeyError, FileNotFoundError) as error:
            raise MalformedLayer(
                entry.name, f"it is a hard link to {target!r}, which the layer doesn't have"
            ) from error
        if found.children is not None or found.is_whiteout:
            raise MalformedLayer(entry.name, f"it is a hard link to {target!r}, which is no file")
        return found

    def _put(self, parts: Parts, made: Inode) -> None:
        names = self.tree.names(parts[:-1], make=True)
        if (found := names.pop(parts[-1], None)) is not None:
            self._gone(found)
            names = self.tree.names(parts[:-1])  # the way there may have led through what is gone
        names[parts[-1]] = made

    def _gone(self, inode: Inode) -> None:
        """Count what was replaced; paths that led through it are looked up again."""
        inode.links -= 1
        if inode.children is not None or stat.S_ISLNK(inode.mode):
            self.tree.forget()
        pending = list((inode.children or {}).values())
        while pending:
            child = pending.pop()
            child.links -= 1
            pending += (child.children or {}).values()


def _dress(inode: Inode, entry: Entry, kind: int) -> None:
    """Give owner, mode, time and attributes."""
    inode.mode = kind | (0o777 if kind == stat.S_IFLNK else entry.mode)
    inode.uid, inode.gid, inode.mtime_ns = entry.uid, entry.gid, entry.mtime_ns
    xattrs = safe_xattrs(entry)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        xattrs = {key: value for key, value in xattrs.items() if not key.startswith(b"user.")}  # xattr(7)
    inode.xattrs = {**inode.xattrs, **xattrs} if kind == stat.S_IFDIR else xattrs
