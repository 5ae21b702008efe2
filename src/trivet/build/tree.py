"""File trees as data: a build context, another stage's files, an archive to be unpacked.

A tar stream becomes a `Tree` (names, kinds, owners, in memory) and its files' contents one after
the other in a spool file. Nothing hostile is ever made on the host: links are followed, and paths
matched, in the tree only, where there is nothing to escape to.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from trivet.build.error import ContextError

Kind = Literal["file", "directory", "symlink", "character", "block", "fifo"]

MOST_LINKS = 40  # as the kernel's ELOOP
DEPTH = 256
PATH = 4096


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a tree. A file's content is `size` bytes at `offset` of the spool, with SHA-256 `digest`."""

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    offset: int = 0
    digest: str = ""
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Tree:
    """Nodes by path (relative, "" is the top). `name` is what messages call it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: dict[str, Node] = {"": Node(kind="directory")}
        self._children: dict[str, set[str]] = {"": set()}

    def add(self, path: str, node: Node) -> None:
        """Put a node at `path`, through links of the tree itself, replacing what is there."""
        path = self.place(path)
        if node.kind == "directory":
            if self._is_directory(path):
                self.nodes[path] = node
                return
        elif not path:
            raise ContextError(f"{self.name} has an entry for its top that is no directory")
        self._remove(path)
        self._insert(path, node)

    def link(self, path: str, target: str) -> None:
        """Make `path` another name of the file at `target` (a hard link)."""
        node = self.nodes.get(self.place(target))
        if node is None or node.kind == "directory":
            raise ContextError(f"{self.name} has a hard link {path} to {target}, which is not there before it")
        self.add(path, node)

    def place(self, path: str) -> str:
        """Tell where an entry called `path` belongs: its parent's links are followed, missing parents made."""
        parts = [part for part in posixpath.normpath("/" + path).split("/") if part]
        if len(parts) > DEPTH or len(path) > PATH:
            raise ContextError(f"{self.name} has a path that is too long or too deep: {path[:80]}…")
        if not parts:
            return ""
        parent = self.resolve("/".join(parts[:-1]), missing=True)
        self._make_directories(parent)
        return posixpath.join(parent, parts[-1])

    def resolve(self, path: str, *, missing: bool = False) -> str:
        """Follow all links of `path` inside the tree. Raises `KeyError` when it leads nowhere, unless `missing`."""
        left = [part for part in path.split("/") if part][::-1]
        found, links = "", 0
        while left:
            part = left.pop()
            if part in (".", ".."):
                found = posixpath.dirname(found) if part == ".." else found
                continue
            candidate = posixpath.join(found, part)
            node = self.nodes.get(candidate)
            if node is None and not missing:
                raise KeyError(path)
            if node is not None and node.kind == "symlink":
                links += 1
                if links > MOST_LINKS:
                    raise ContextError(f"{self.name} has too many links in {path}")
                found = "" if node.link.startswith("/") else found
                left += [part for part in node.link.split("/") if part][::-1]
            else:
                found = candidate
        return found

    def children(self, path: str) -> list[str]:
        """List the names in a directory, sorted."""
        return sorted(self._children.get(path, ()))

    def walk(self, path: str) -> Iterator[tuple[str, Node]]:
        """List `path` and everything below it, parents first, in order of names."""
        waiting = [path]
        while waiting:
            each = waiting.pop()
            yield each, self.nodes[each]
            waiting += [posixpath.join(each, name) for name in reversed(self.children(each))]

    def without(self, excludes: Callable[[str], bool]) -> Tree:
        """Leave out paths; directories stay where something in them does."""
        kept = Tree(self.name)
        for path, node in self.walk(""):
            if path and not excludes(path):
                kept._make_like(self, posixpath.dirname(path))
                kept._insert(path, node)
        return kept

    def below(self, path: str) -> Tree:
        """Take a directory for a tree of its own."""
        tree = Tree(self.name)
        for each, node in self.walk(path):
            tree._insert(each[len(path) :].lstrip("/"), node)
        return tree

    def _is_directory(self, path: str) -> bool:
        node = self.nodes.get(path)
        return node is not None and node.kind == "directory"

    def _make_directories(self, path: str) -> None:
        if path and not self._is_directory(path):
            self._make_directories(posixpath.dirname(path))
            self._remove(path)
            self._insert(path, Node(kind="directory"))

    def _make_like(self, other: Tree, path: str) -> None:
        if path not in self.nodes:
            self._make_like(other, posixpath.dirname(path))
            self._insert(path, other.nodes[path])

    def _insert(self, path: str, node: Node) -> None:
        self.nodes[path] = node
        if path:
            parent, name = posixpath.split(path)
            self._children.setdefault(parent, set()).add(name)

    def _remove(self, path: str) -> None:
        """Take a node and what is below it away, if it is there."""
        if path not in self.nodes:
            return
        for each in [each for each, _ in self.walk(path)]:
            del self.nodes[each]
            self._children.pop(each, None)
        parent, name = posixpath.split(path)
        self._children[parent].discard(name)
