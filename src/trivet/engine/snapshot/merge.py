"""Stacking trees as overlayfs stacks directories, so that all layers of an image are one file system.

Nothing is read but the trees: contents stay in each layer's file, which becomes a device of the whole. Blocks of all
devices are counted in one row, so that an inode only says where in the row its content begins.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from trivet.engine.snapshot.inode import OPAQUE, Inode
from trivet.engine.snapshot.walk import descend


def stacked(trees: Sequence[Inode], below: Sequence[Path]) -> Inode:
    """Make one tree of several, bottom first, that will lie on directories (topmost first); they are used up."""
    whole, *others = trees
    for tree in others:
        merge(tree, whole)
        whole = tree
    if below:
        drop_idle_whiteouts(whole, below)
    else:
        settle(whole)
    count_links(whole)
    return whole


def merge(upper: Inode, lower: Inode) -> None:
    """Put what shows through of a root `lower` into the root `upper`, and of everything below; `lower` is used up.

    An opaque root hides nothing, as in overlayfs. Whiteouts and opaque marks stay: what they hide may be further down.
    """
    pending = [(upper, lower)]
    while pending:
        above, under = pending.pop()
        names = above.children
        assert names is not None
        for name, child in (under.children or {}).items():
            mine = names.setdefault(name, child)
            if mine is child or mine.children is None or mine.is_opaque:
                continue
            if child.children is None:
                mine.hide_below()
                continue
            if child.is_opaque:
                mine.hide_below()
            pending.append((mine, child))


def settle(root: Inode) -> None:
    """Drop the marks of a tree with nothing below it."""
    for directory in _directories(root):
        names = directory.children
        assert names is not None
        for name in [name for name, child in names.items() if child.is_whiteout]:
            del names[name]
        if directory.is_opaque:
            directory.xattrs = {key: value for key, value in directory.xattrs.items() if key != OPAQUE}


def count_links(root: Inode) -> None:
    """Count how many names each file has left."""
    files = [child for directory in _directories(root) for child in _files(directory)]
    for file in files:
        file.links = 0
    for file in files:
        file.links += 1


def drop_idle_whiteouts(root: Inode, below: Sequence[Path]) -> None:
    """Drop whiteouts in directories that nothing below has a part of: overlayfs would list them as broken names."""
    pending = [(root, list(below))]
    while pending:
        directory, lowers = pending.pop()
        if directory.is_opaque and directory is not root:
            lowers = []
        names = directory.children or {}
        if not lowers:
            for name in [name for name, child in names.items() if child.is_whiteout]:
                del names[name]
        for name, child in names.items():
            if child.children is not None:
                pending.append((child, descend(lowers, os.fsdecode(name))[0]))


def move(root: Inode, by: int) -> None:
    """Count the blocks of a tree's files from elsewhere."""
    moved = set[int]()
    for directory in _directories(root):
        for file in _files(directory):
            if stat.S_ISREG(file.mode) and file.size and id(file) not in moved:
                moved.add(id(file))
                file.block += by


def _directories(root: Inode) -> Iterator[Inode]:
    pending = [root]
    while pending:
        directory = pending.pop()
        yield directory
        pending += (child for child in (directory.children or {}).values() if child.children is not None)


def _files(directory: Inode) -> Iterator[Inode]:
    return (child for child in (directory.children or {}).values() if child.children is None)
