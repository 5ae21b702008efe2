"""ADD's archives: is a file a tar, packed with gzip, bzip2, xz or zstd, or not at all?"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import zlib
from typing import Protocol, cast

import zstandard
from isal import isal_zlib

from trivet.base.error import TrivetError
from trivet.build.error import ContextError
from trivet.build.spool import Spool
from trivet.build.tree import Node, Tree
from trivet.engine.snapshot import tar
from trivet.engine.snapshot.stream import BZIP2, XZ, BrokenCompression, Readable, decompressed

CHUNK = 1 << 20
MEMORY = 256 << 20  # what an xz dictionary may take
BROKEN: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, zstandard.ZstdError),
    cast(type[Exception], isal_zlib.error),
)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Slice(io.RawIOBase):
    """The content of one file of the spool."""

    def __init__(self, spool: Spool, node: Node) -> None:
        self._descriptor = spool.descriptor()
        self._at = node.offset
        self._end = node.offset + node.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(cast(bytearray, buffer))
        piece = os.pread(self._descriptor, min(len(view), self._end - self._at), self._at)
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


class _Unpacked:
    """A bzip2 or xz stream, read in bounded pieces."""

    def __init__(self, source: Readable, head: bytes) -> None:
        self._source = source
        self._head = head
        self._decompressor = self._begin()
        self._input = b""

    def _begin(self) -> _Decompressor:
        if self._head.startswith(BZIP2):
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(memlimit=MEMORY)

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes; several streams one after the other are one."""
        try:
            return self._read(CHUNK if size < 0 else size)
        except BROKEN as error:
            raise BrokenCompression("archive", error) from error

    def _read(self, size: int) -> bytes:
        while True:
            if self._decompressor.eof:
                self._input = self._decompressor.unused_data or self._source.read(CHUNK)
                if not self._input.strip(b"\0"):
                    return b""
                self._decompressor = self._begin()
            elif self._decompressor.needs_input and not self._input:
                self._input = self._source.read(CHUNK)
                if not self._input:
                    raise EOFError("it ends too early")
            piece = self._decompressor.decompress(self._input, size)
            self._input = b""
            if piece:
                return piece


def opened(spool: Spool, node: Node) -> Readable:
    """Read a file of the spool, decompressed if it is packed."""
    head = spool.read(node, 6)
    source = _Slice(spool, node)
    if head.startswith((BZIP2, XZ)):
        return _Unpacked(io.BufferedReader(source, CHUNK), head)
    return decompressed(source, subject="archive")


def is_archive(spool: Spool, node: Node) -> bool:
    """Tell whether a file is a tar archive, packed or not: its first header must be sound."""
    if node.kind != "file":
        return False
    try:
        source, header = opened(spool, node), b""
        while len(header) < tar.BLOCK and (piece := source.read(tar.BLOCK - len(header))):
            header += piece
    except TrivetError:
        return False
    except BROKEN:
        return False
    return len(header) == tar.BLOCK and _is_header(header)


def _is_header(block: bytes) -> bool:
    """Compare the checksum a tar header carries with the real one; an empty block is none."""
    digits = block[148:156].strip(b"\0 ")
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        return False
    return any(block) and int(digits, 8) == sum(block) - sum(block[148:156]) + 8 * 32


def unpacked(spool: Spool, node: Node, name: str) -> Tree:
    """Read an archive into a tree of its own. Raises `ContextError`."""
    try:
        return spool.take(opened(spool, node), name, devices=True)
    except BROKEN as error:
        raise ContextError(f"{name} cannot be unpacked: {error}") from error
