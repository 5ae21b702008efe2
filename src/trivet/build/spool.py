"""Tar streams to trees; the files' contents go into one spool file."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

from trivet.base.error import Corrupt, Exhausted
from trivet.build.error import ContextError
from trivet.build.tree import Kind, Node, Tree
from trivet.engine.snapshot import tar
from trivet.store.content import StoreFull, explaining_full

MOST_BYTES = 64 << 30
MOST_ENTRIES = 3_000_000
_KINDS: dict[bytes, Kind] = {
    tar.FILE: "file",
    tar.DIRECTORY: "directory",
    tar.SYMLINK: "symlink",
    tar.CHARACTER: "character",
    tar.BLOCK_DEVICE: "block",
    tar.FIFO: "fifo",
}
_ZEROS = bytes(1 << 20)


class Spool:
    """A file without a name that grows by the contents of everything a build takes in, one after the other."""

    def __init__(self, directory: Path) -> None:
        self._path = directory
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by __exit__
        self._end = 0
        self._lock = threading.RLock()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def descriptor(self) -> int:
        """The open file, for reading with pread(2) or sendfile(2)."""
        with self._lock:
            self._file.flush()
        return self._file.fileno()

    def read(self, node: Node, limit: int) -> bytes:
        """Read a file's content, at most `limit` bytes."""
        return os.pread(self.descriptor(), min(node.size, limit), node.offset)

    def store(self, content: bytes, mtime_ns: int = 0) -> Node:
        """Append a file made by the build itself."""
        return self.absorb(io.BytesIO(content), mtime_ns // 10**9)

    def absorb(self, file: BinaryIO, mtime: int) -> Node:
        """Append a whole file, changed at `mtime` (Unix time)."""
        state, size = hashlib.sha256(), 0
        file.seek(0)
        with self._lock, explaining_full(self._path):
            offset = self._end
            while piece := file.read(len(_ZEROS)):
                state.update(piece)
                self._file.write(piece)
                size += len(piece)
            self._end += size
        return Node(kind="file", mode=0o644, size=size, offset=offset, digest=state.hexdigest(), mtime_ns=mtime * 10**9)

    def take(self, source: tar.Source, name: str, *, devices: bool = False, anonymous: bool = False) -> Tree:
        """Read a tar stream to its end; with `anonymous` everything belongs to root.

        Raises `ContextError` for a stream that is hostile or broken.
        """
        try:
            with self._lock, explaining_full(self._path):
                return self._take(source, name, devices, anonymous)
        except StoreFull:
            raise
        except (Corrupt, Exhausted) as error:
            raise ContextError(f"{name} cannot be read: {error.message}") from error

    def _take(self, source: tar.Source, name: str, devices: bool, anonymous: bool) -> Tree:
        tree = Tree(name)
        reader = tar.Reader(source)
        for count, entry in enumerate(reader, 1):
            if count > MOST_ENTRIES or self._end + entry.size > MOST_BYTES:
                raise ContextError(f"{name} is too large: over {MOST_ENTRIES} entries or {MOST_BYTES >> 30} GiB")
            path, link = (raw.decode("utf-8", "surrogateescape") for raw in (entry.name, entry.link))
            if "\0" in path + link:
                raise ContextError(f"{name} has a name with a null character")
            if entry.type == tar.HARD_LINK:
                tree.link(path, link)
                continue
            if anonymous:
                entry.uid = entry.gid = 0
            kind = _KINDS.get(entry.type)
            if kind is None or (kind in ("character", "block", "fifo") and not devices):
                raise ContextError(f"{name} holds {path}, which is neither a file, a directory nor a link")
            tree.add(path, self._node(reader, entry, kind, link))
        reader.drain()
        return tree

    def _node(self, reader: tar.Reader, entry: tar.Entry, kind: Kind, link: str) -> Node:
        offset, digest = self._content(reader, entry) if kind == "file" else (0, "")
        if not (0 <= entry.uid < 1 << 32 and 0 <= entry.gid < 1 << 32):
            raise ContextError(f"{entry.name.decode(errors='replace')} has an owner that is out of range")
        return Node(
            kind=kind,
            mode=entry.mode & 0o7777,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=max(entry.mtime_ns, 0),
            size=entry.size if kind == "file" else 0,
            offset=offset,
            digest=digest,
            link=link if kind == "symlink" else "",
            major=entry.major,
            minor=entry.minor,
            xattrs=_kept(entry.xattrs),
        )

    def _content(self, reader: tar.Reader, entry: tar.Entry) -> tuple[int, str]:
        """Append the entry's data, holes filled with zeros; give its offset and SHA-256."""
        state, begin, at = hashlib.sha256(), self._end, 0

        def write(piece: memoryview) -> None:
            state.update(piece)
            self._file.write(piece)

        pieces = entry.sparse if entry.sparse is not None else [(0, entry.size)]
        for offset, length in [*pieces, (entry.size, 0)]:
            while at < offset:
                hole = _ZEROS[: offset - at]
                state.update(hole)
                self._file.seek(len(hole), os.SEEK_CUR)
                at += len(hole)
            reader.copy(length, write)
            at += length
        self._end += entry.size
        if entry.sparse is not None:
            self._file.truncate(self._end)
        return begin, state.hexdigest()


def _kept(xattrs: dict[bytes, bytes]) -> tuple[tuple[str, bytes], ...]:
    """Keep file capabilities and the user's own attributes; overlay's and the like would change what a layer means."""
    names = sorted(name for name in xattrs if name == b"security.capability" or name.startswith(b"user."))
    return tuple((name.decode("utf-8", "surrogateescape"), xattrs[name]) for name in names if b"overlay" not in name)
