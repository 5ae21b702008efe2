"""The wire form of operations: an encoding derived from their fields, and the line that shows one to people."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, ClassVar, get_type_hints

import msgspec

MAGIC = b"TRVPLAN1"


class Operation(msgspec.Struct, frozen=True):
    """Base of all operations; `code` is the number on the wire and never reused.

    The wire form of operations that are `repeated`, the same in most plans and without anybody's secrets, is kept.
    """

    code: ClassVar[int] = 0
    repeated: ClassVar[bool] = False

    def describe(self) -> str:
        """Render as one line for `--dry-run` and golden files; long values are abbreviated."""
        words = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value not in ("", b"", 0, ()):
                words.append(f"{name}={_abbreviate(value)}")
        return " ".join([_kebab(type(self).__name__), *words])


def signature(kind: type[Operation]) -> str:
    """Spell an operation's fields as the C table does: i integer, s string or bytes, l list of strings."""
    letters = {int: "i", str: "s", bytes: "s", tuple[str, ...]: "l"}
    hints = get_type_hints(kind)
    return "".join(letters[hints[name]] for name in kind.__struct_fields__)


def encode(operations: list[Operation]) -> bytes:
    """Encode a plan for the launcher.

    Layout, all little-endian: MAGIC; u32 count; per operation u32 code, u32 length of what follows,
    then the fields: an integer is i64, a string u32 length + bytes + NUL, a list u32 count + strings.
    Raises ValueError for a string that holds a NUL byte.
    """
    return whole(len(operations), encode_each(operations))


def encode_each(operations: Iterable[Operation]) -> bytes:
    """Encode operations, one behind the other."""
    return b"".join([_encoded(each) if each.repeated else _encode(each) for each in operations])


def whole(count: int, body: bytes) -> bytes:
    """Make a plan of encoded operations."""
    return MAGIC + count.to_bytes(4, "little") + body


def _encode(operation: Operation) -> bytes:
    values = msgspec.structs.astuple(operation)
    try:
        fields = b"".join([_WIRE[type(value)](value) for value in values])
    except KeyError:  # a word of an enumeration, or a truth value
        fields = b"".join([field(value) for value in values])
    return _HEAD(operation.code, len(fields)) + fields


_encoded = lru_cache(1024)(_encode)


def field(value: object) -> bytes:
    """Encode one field."""
    kind = next((kind for kind in _WIRE if isinstance(value, kind)), None)
    if kind is None:
        raise TypeError(f"no wire form for {value!r}")
    return _WIRE[kind](value)


_HEAD = struct.Struct("<II").pack
_LENGTH = struct.Struct("<I").pack
_INTEGER = struct.Struct("<q").pack


def _string(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise ValueError(f"a string of a launch plan holds a NUL byte: {value!r}")
    return _LENGTH(len(raw)) + raw + b"\0"


def _bytes(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value + b"\0"


def _list(value: tuple[str, ...]) -> bytes:
    return _LENGTH(len(value)) + b"".join([_string(item) for item in value])


def _integer(value: int) -> bytes:
    try:
        return _INTEGER(value)
    except struct.error as error:
        raise OverflowError(f"a number of a launch plan has more than 64 bits: {value}") from error


_WIRE: dict[type, Callable[[Any], bytes]] = {
    int: _integer,
    str: _string,
    bytes: _bytes,
    tuple: _list,
}


def _kebab(name: str) -> str:
    return "".join("-" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _abbreviate(value: object) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>" if len(value) > 40 else repr(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_abbreviate(item) for item in value) + "]"
    text = str(value) if isinstance(value, int) else repr(value)
    return text if len(text) <= 200 else text[:190] + f"… ({len(text)} characters)"
