"""Reading a log from where it was sent to, through rotations.

A file is known by its first record's time: the name changes with a rotation, and a new file may get an old one's inode.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from trivet.base.clock import now_ns
from trivet.launch.log import Record, files, parse

HEAD = 30  # bytes of a record's time
BATCH = 1 << 18  # bytes read at once
LINE = 16 << 10  # a longer line is sent in pieces, as Docker does
STALE = 1_000_000_000  # ns after which a line whose end hasn't come is sent without


class Position(msgspec.Struct, frozen=True):
    """Up to where a log was sent: the file that begins with `head`, `offset` bytes of it."""

    head: str = ""
    offset: int = 0


@dataclass(frozen=True)
class Batch:
    """What comes next, and the positions around it; `lost` if some was rotated away before it could be sent."""

    before: Position
    after: Position
    records: list[Record] = field(default_factory=list)
    lost: bool = False


def load(path: Path) -> Position:
    """Read a position; one that is missing or malformed is the log's beginning."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Position)
    except (OSError, msgspec.DecodeError):
        return Position()


def save(path: Path, position: Position) -> None:
    """Replace it. Where the instance is gone, there is nothing to remember."""
    fresh = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.write_bytes(msgspec.json.encode(position))
        fresh.rename(path)


def all_sent(log: Path, sent: Path) -> bool:
    """Tell whether nothing is left to be sent."""
    return not _next(log, load(sent))[0]


def read(log: Path, position: Position) -> Batch:
    """Read what follows a position, in whole lines."""
    block, head, start, lost = _next(log, position)
    records: list[Record] = []
    open_: dict[str, list[Record]] = {}
    safe, ready, at = 0, 0, 0
    for line in block.splitlines(keepends=True):
        at += len(line)
        record = parse(line.removesuffix(b"\n"))
        if record is not None:
            pieces = open_.setdefault(record.stream, [])
            pieces.append(record)
            if not record.partial or sum(len(each.content) for each in pieces) >= LINE:
                records.append(_joined(open_.pop(record.stream)))
            else:
                continue
        if not open_:
            safe, ready = at, len(records)
    if open_ and (len(block) >= BATCH or _stale(open_)):
        records += [_joined(pieces) for pieces in open_.values()]
        safe, ready = at, len(records)
    if not safe:
        return Batch(position, position)
    return Batch(Position(head, start), Position(head, start + safe), records[:ready], lost)


def _joined(pieces: list[Record]) -> Record:
    first, last = pieces[0], pieces[-1]
    return Record(first.time, first.stream, last.partial, b"".join(each.content for each in pieces))


def _stale(pieces: dict[str, list[Record]]) -> bool:
    return max(each[-1].time for each in pieces.values()) + STALE < now_ns()


def _next(log: Path, position: Position) -> tuple[bytes, str, int, bool]:
    """Read whole lines behind a position: them, the file's head, where they begin there, and whether some are lost."""
    there = [(path, _head(path)) for path in files(log)]
    heads = [head for _, head in there]
    place = heads.index(position.head) if position.head and position.head in heads else -1
    lost = bool(position.head) and place < 0
    for path, head in there[max(place, 0) :]:
        start = position.offset if head == position.head else 0
        if block := _lines(path, start):
            return block, head, start, lost
    return b"", position.head, position.offset, False


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(HEAD).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _lines(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            block = file.read(BATCH)
    except FileNotFoundError:
        return b""
    return block[: block.rfind(b"\n") + 1]
