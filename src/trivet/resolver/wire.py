"""DNS messages as bytes (RFC 1035, section 4): one question in, an answer out; nothing else is understood.

    header     id, flags, four counts (u16 each)        question   name, type, class
    record     name, type, class, ttl, length, data     name       labels with a length each, ended by 0

Names of questions are never compressed; names of answers point at the question's (0xC00C).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER = struct.Struct(">6H")
A, PTR, AAAA, SRV, OPT, ANY = 1, 12, 28, 33, 41, 255
IN = 1
OK, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = 0, 1, 2, 3, 4, 5
RESPONSE, OPCODE, AUTHORITATIVE, TRUNCATED, WANTED, AVAILABLE = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080
SMALLEST, LARGEST = 512, 4096  # what a UDP answer may take
LONGEST_NAME, LONGEST_LABEL = 255, 63
TTL = 5  # names follow instances, which come and go
_RECORD = struct.Struct(">HHIH")
_OPTIONS = struct.Struct(">BHHIH")
_QUESTION_NAME = b"\xc0\x0c"
_SIGNED, _BAD_VERSION = 0x8000, 0x1000000  # in the place of an option record's TTL


class Query(NamedTuple):
    """A question. `name` is in lower case without a dot at its end, `question` its bytes, `room` a UDP answer's.

    `extended` says that it came with an option record (RFC 6891), `signed` that signatures are understood (RFC 3225).
    """

    id: int
    flags: int
    name: str
    type: int
    klass: int
    question: bytes
    room: int
    extended: bool
    signed: bool = False


class Malformed(Exception):
    """Bytes that are no question; `answer` is what to send back, empty for nothing."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__("malformed")
        self.answer = answer


def parse(data: bytes) -> Query:
    """Read a query. Raises `Malformed`; what claims to be an answer is never answered, or two servers would go on."""
    if len(data) < HEADER.size:
        raise Malformed
    number, flags, questions, answers, authorities, _ = HEADER.unpack_from(data)
    if flags & RESPONSE:
        raise Malformed
    if flags & OPCODE:
        raise Malformed(_bare(number, flags, NOT_IMPLEMENTED))
    if questions != 1 or answers or authorities or len(data) > LARGEST:
        raise Malformed(_bare(number, flags, FORMAT_ERROR))
    try:
        name, end = _name(data, HEADER.size)
        kind, klass = struct.unpack_from(">HH", data, end)
    except (struct.error, IndexError, ValueError):
        raise Malformed(_bare(number, flags, FORMAT_ERROR)) from None
    room, version, signed = _options(data, end + 4)
    question = data[HEADER.size : end + 4]
    if version:
        head = HEADER.pack(number, RESPONSE | AVAILABLE | flags & WANTED, 1, 0, 0, 1)
        raise Malformed(head + question + _OPTIONS.pack(0, OPT, LARGEST, _BAD_VERSION, 0))
    return Query(number, flags, name, kind, klass, question, max(SMALLEST, min(room, LARGEST)), bool(room), signed)


def answer(query: Query, code: int, records: list[tuple[int, bytes]], room: int = 0xFFFF) -> bytes:
    """Build the answer; records that don't fit into `room` are left out and the answer says so."""
    options = _OPTIONS.pack(0, OPT, LARGEST, _SIGNED if query.signed else 0, 0) if query.extended else b""
    ours = AUTHORITATIVE if code in (OK, NO_SUCH_NAME) else 0
    flags = RESPONSE | AVAILABLE | query.flags & WANTED | code | ours
    body, count = b"", 0
    for kind, data in records:
        record = _QUESTION_NAME + _RECORD.pack(kind, IN, TTL, len(data)) + data
        if HEADER.size + len(query.question) + len(body) + len(record) + len(options) > room:
            flags |= TRUNCATED
            break
        body += record
        count += 1
    return HEADER.pack(query.id, flags, 1, count, 0, bool(options)) + query.question + body + options


def encode(name: str) -> bytes:
    """Write a name in labels. Raises ValueError for one that can't be written."""
    labels = [label.encode() for label in name.split(".")] if name else []
    if any(not 0 < len(label) <= LONGEST_LABEL for label in labels) or len(name) > LONGEST_NAME - 2:
        raise ValueError(name)
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def matches(query: Query, number: int, reply: bytes) -> bool:
    """Tell whether bytes answer this question under this id: anything else was sent by somebody who guesses."""
    start = HEADER.size
    if len(reply) < start + len(query.question):
        return False
    got, flags, questions, *_ = HEADER.unpack_from(reply)
    asked = reply[start : start + len(query.question)]
    return (got, bool(flags & RESPONSE), questions) == (number, True, 1) and asked.lower() == query.question.lower()


def code(reply: bytes) -> int:
    """Read the response code of an answer."""
    return reply[3] & 15


def renumber(message: bytes, number: int) -> bytes:
    """Give a message another id."""
    return struct.pack(">H", number) + message[2:]


def _name(data: bytes, position: int) -> tuple[str, int]:
    labels: list[str] = []
    start = position
    while size := data[position]:
        if size > LONGEST_LABEL or position + size + 1 - start >= LONGEST_NAME:
            raise ValueError("a label or name is too long")
        label = data[position + 1 : position + 1 + size]
        labels.append(label.decode("latin-1").lower())
        position += 1 + size
    return ".".join(labels), position + 1


def _options(data: bytes, position: int) -> tuple[int, int, bool]:
    """Read an option record right after the question: how large a UDP answer may be (0: there is none), its version,
    and whether signatures are understood.
    """
    try:
        name, kind, size, more, _ = _OPTIONS.unpack_from(data, position)
    except struct.error:
        return 0, 0, False
    return (max(size, 1), more >> 16 & 0xFF, bool(more & _SIGNED)) if (name, kind) == (0, OPT) else (0, 0, False)


def _bare(number: int, flags: int, code: int) -> bytes:
    return HEADER.pack(number, RESPONSE | AVAILABLE | flags & (OPCODE | WANTED) | code, 0, 0, 0, 0)
