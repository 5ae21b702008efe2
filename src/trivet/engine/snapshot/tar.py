"""Reading tar streams that may be hostile: entries out, everything bounded, nothing buffered but headers.

Understands ustar, PAX (also global headers), GNU long names, base-256 numbers, and sparse files in all
four encodings (GNU 'S', PAX 0.0, 0.1 and 1.0). Paths are bytes, as the kernel sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol

import msgspec

from trivet.base.error import Corrupt

BLOCK = 512
CHUNK = 1 << 20
MAXIMUM_EXTENSION = 1 << 20  # bytes of one PAX header, long name or sparse map
MAXIMUM_SIZE = 1 << 50

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_CONTIGUOUS, _PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK, _SPARSE = b"7", b"x", b"g", b"L", b"K", b"S"
_NO_DATA = frozenset({HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})
_XATTR = b"SCHILY.xattr."


class MalformedTar(Corrupt):
    """A tar stream that breaks its format, or one of our limits."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"tar stream is malformed: {problem}")


class Source(Protocol):
    """Where the bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; empty at the end."""


class Entry(msgspec.Struct, kw_only=True):
    """One entry. `size` is the length of the file it makes, `stored` that of its data in the stream.

    `sparse` lists (offset, length) of the stored pieces, or is None for an ordinary file.
    """

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    stored: int
    mtime_ns: int
    link: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes]
    sparse: list[tuple[int, int]] | None = None


class Reader:
    """Iterate over the entries; the data of each must be taken (`copy`) or is skipped at the next one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = memoryview(b"")
        self._left = 0  # data bytes of the current entry not yet taken
        self._padding = 0
        self._globals: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        pending: dict[bytes, bytes] = {}
        xattrs: dict[bytes, bytes] = {}
        while (header := self._header()) is not None:
            kind = header[156:157]
            if kind in (_PAX, _PAX_GLOBAL):
                self._extension(header, self._globals if kind == _PAX_GLOBAL else pending, xattrs)
            elif kind in (_LONG_NAME, _LONG_LINK):
                text = self._text(header).rstrip(b"\0")
                pending[b"path" if kind == _LONG_NAME else b"linkpath"] = text
            else:
                yield self._entry(header, {**self._globals, **pending} if pending else self._globals, xattrs)
                pending, xattrs = {}, {}

    def copy(self, size: int, write: Callable[[memoryview], object]) -> None:
        """Hand the next `size` data bytes of the current entry to `write`, in pieces."""
        self._left -= size
        if self._left < 0:
            raise MalformedTar("a sparse map is longer than the data")
        while size:
            piece = self._some(size)
            write(piece)
            size -= len(piece)

    def drain(self) -> None:
        """Read whatever follows the end mark."""
        self._buffer = memoryview(b"")
        while self._source.read(CHUNK):
            pass

    def _some(self, size: int) -> memoryview:
        """Take between 1 and `size` bytes."""
        if not self._buffer:
            self._buffer = memoryview(self._source.read(CHUNK))
            if not self._buffer:
                raise MalformedTar("it ends in the middle of an entry")
        piece = self._buffer[:size]
        self._buffer = self._buffer[size:]
        return piece

    def _exactly(self, size: int) -> bytes:
        if len(self._buffer) >= size:
            piece = bytes(self._buffer[:size])
            self._buffer = self._buffer[size:]
            return piece
        parts = bytearray()
        while len(parts) < size:
            parts += self._some(size - len(parts))
        return bytes(parts)

    def _skip(self) -> None:
        if self._left:
            self.copy(self._left, _nowhere)
        size, self._padding = self._padding, 0
        while size:
            size -= len(self._some(size))

    def _header(self) -> bytes | None:
        """Read the next header block; None at the end mark, or where the stream ends between entries."""
        self._skip()
        if not self._buffer:
            self._buffer = memoryview(self._source.read(CHUNK))
            if not self._buffer:
                return None
        header = self._exactly(BLOCK)
        if header.count(0) == BLOCK:
            return None
        checksum = sum(header) - sum(header[148:156]) + 8 * 32
        if _number(header[148:156]) != checksum:
            raise MalformedTar("a header's checksum is wrong")
        return header

    def _data(self, size: int) -> None:
        if not 0 <= size <= MAXIMUM_SIZE:
            raise MalformedTar(f"an entry claims {size} bytes")
        self._left = size
        self._padding = -size % BLOCK

    def _text(self, header: bytes) -> bytes:
        """Read the data of a header that extends the next one."""
        self._data(_number(header[124:136]))
        if self._left > MAXIMUM_EXTENSION:
            raise MalformedTar(f"an extended header is larger than {MAXIMUM_EXTENSION} bytes")
        text = bytearray()
        self.copy(self._left, text.extend)
        return bytes(text)

    def _extension(self, header: bytes, into: dict[bytes, bytes], xattrs: dict[bytes, bytes]) -> None:
        sparse: list[bytes] = []
        for key, value in _records(self._text(header)):
            if key.startswith(_XATTR):
                xattrs[key[len(_XATTR) :]] = value
            elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                sparse.append(value)
            else:
                into[key] = value
        if sparse:
            into[b"GNU.sparse.map"] = b",".join(sparse)

    def _entry(self, header: bytes, pax: dict[bytes, bytes], xattrs: dict[bytes, bytes]) -> Entry:
        kind = header[156:157]
        stored = 0 if kind in _NO_DATA else _decimal(pax.get(b"size"), _number(header[124:136]))
        name, link = pax.get(b"path", _path(header)), pax.get(b"linkpath", _string(header[157:257]))
        if kind in (b"\0", FILE, _CONTIGUOUS, _SPARSE):
            kind, sparse = (DIRECTORY if name.endswith(b"/") and kind != _SPARSE else FILE), kind == _SPARSE
        else:
            sparse = False
        self._data(stored)
        entry = Entry(
            name=pax.get(b"GNU.sparse.name", name),
            type=kind,
            mode=_number(header[100:108]) & 0o7777,
            uid=_decimal(pax.get(b"uid"), _number(header[108:116])),
            gid=_decimal(pax.get(b"gid"), _number(header[116:124])),
            size=stored,
            stored=stored,
            mtime_ns=_nanoseconds(pax.get(b"mtime"), _number(header[136:148])),
            link=link,
            major=_number(header[329:337]) if kind in (CHARACTER, BLOCK_DEVICE) else 0,
            minor=_number(header[337:345]) if kind in (CHARACTER, BLOCK_DEVICE) else 0,
            xattrs=xattrs,
        )
        self._read_sparse(entry, header, pax, old=sparse)
        return entry

    def _read_sparse(self, entry: Entry, header: bytes, pax: dict[bytes, bytes], *, old: bool) -> None:
        """Find the map of a sparse file: in the header, in PAX records, or in front of the data."""
        if entry.type != FILE:
            return
        if old:
            entry.size = _number(header[483:495])
            entry.sparse = self._old_map(header)
        elif pax.get(b"GNU.sparse.major") == b"1":
            entry.size = _decimal(pax.get(b"GNU.sparse.realsize"), 0)
            entry.sparse = self._leading_map()
        elif b"GNU.sparse.map" in pax:
            entry.size = _decimal(pax.get(b"GNU.sparse.realsize", pax.get(b"GNU.sparse.size")), 0)
            numbers = [_decimal(word, 0) for word in pax[b"GNU.sparse.map"].split(b",")]
            entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=False))
        if entry.sparse is not None:
            _check_map(entry)

    def _old_map(self, header: bytes) -> list[tuple[int, int]]:
        pieces = _pieces(header[386:482])
        extended = header[482]
        while extended:
            block = self._exactly(BLOCK)
            pieces += _pieces(block[:504])
            extended = block[504]
            if len(pieces) > MAXIMUM_EXTENSION // 24:
                raise MalformedTar("a sparse map is too long")
        return pieces

    def _leading_map(self) -> list[tuple[int, int]]:
        """Read the decimal lines in front of the data: a count, then offset and length of each piece."""
        text = bytearray()
        while True:
            if len(text) > MAXIMUM_EXTENSION:
                raise MalformedTar("a sparse map is too long")
            self.copy(BLOCK, text.extend)
            lines = bytes(text).split(b"\n")
            if len(lines) > 1 and len(lines) > 2 * (count := _decimal(lines[0], 0)) + 1:
                numbers = [_decimal(line, 0) for line in lines[1 : 2 * count + 1]]
                return list(zip(numbers[::2], numbers[1::2], strict=True))


def _nowhere(piece: memoryview) -> None:
    """Drop it."""


def _check_map(entry: Entry) -> None:
    end = 0
    for offset, length in entry.sparse or []:
        if offset < end or length < 0:
            raise MalformedTar("the pieces of a sparse file overlap")
        end = offset + length
    if end > entry.size or entry.size > MAXIMUM_SIZE:
        raise MalformedTar("a sparse file is larger than it says")


def _pieces(field: bytes) -> list[tuple[int, int]]:
    pairs = ((field[at : at + 12], field[at + 12 : at + 24]) for at in range(0, len(field), 24))
    return [(_number(offset), _number(length)) for offset, length in pairs if offset.strip(b"\0")]


def _records(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Take PAX records apart: `length key=value\\n`, where length counts itself."""
    at = 0
    while at < len(text):
        space = text.find(b" ", at, at + 9)
        length = _decimal(text[at:space], 0) if space > 0 else 0
        record = text[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if space < 0 or length <= space - at + 1 or at + length > len(text) or not equals or not value.endswith(b"\n"):
            raise MalformedTar("an extended header is broken")
        yield key, value[:-1]
        at += length


def _string(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _path(header: bytes) -> bytes:
    name = _string(header[:100])
    prefix = _string(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


@lru_cache(1024)  # the same owners, modes and times over and over
def _number(field: bytes) -> int:
    """Read an octal field, or GNU's base-256 form of large and negative numbers."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.partition(b"\0")[0].strip(b" ")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise MalformedTar(f"a header holds {field!r} where a number belongs") from None


def _decimal(text: bytes | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdigit() or len(text) > 20:
        raise MalformedTar(f"an extended header holds {text[:24]!r} where a number belongs")
    return int(text)


def _nanoseconds(text: bytes | None, default: int) -> int:
    if text is None:
        return default * 1_000_000_000
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    value = _decimal(whole or b"0", 0) * 1_000_000_000 + _decimal(fraction[:9].ljust(9, b"0") if fraction else b"0", 0)
    return -value if text.startswith(b"-") else value
