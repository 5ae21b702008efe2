"""The CRI log the monitor writes: `TIME STREAM F|P CONTENT` a line, across rotated files.

`P` marks a piece of a line whose end comes later (perhaps in the next file). Content is bytes.
"""

from __future__ import annotations

import calendar
import mmap
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

Stream = Literal["stdout", "stderr"]
_STREAMS: dict[bytes, Stream] = {b"stdout": "stdout", b"stderr": "stderr"}
LOOK_BACK = 4096  # records searched for earlier pieces of a line that was found
_SECOND = 1_000_000_000
_TIME_LENGTH = len("2026-11-26T01:11:26.123456789Z")


class Record(msgspec.Struct, frozen=True):
    """One line of the log; `content` has its newline back unless `partial`."""

    time: int
    stream: Stream
    partial: bool
    content: bytes


def files(path: Path) -> list[Path]:
    """List the log's files that exist, oldest first: PATH.N ... PATH.1, PATH."""
    old: list[Path] = []
    while (candidate := path.with_name(f"{path.name}.{len(old) + 1}")).exists():
        old.append(candidate)
    return [*reversed(old), *([path] if path.exists() else [])]


def parse(line: bytes) -> Record | None:
    """Read one line without its newline; None when it is no record (torn by a crash)."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or len(parts[0]) != _TIME_LENGTH or parts[1] not in _STREAMS or parts[2] not in (b"F", b"P"):
        return None
    try:
        time = parse_time(parts[0])
    except ValueError:
        return None
    partial = parts[2] == b"P"
    return Record(time, _STREAMS[parts[1]], partial, parts[3] if partial else parts[3] + b"\n")


def parse_time(text: bytes) -> int:
    """Turn a record's time into Unix time in nanoseconds. Raises ValueError."""
    date = (int(text[0:4]), int(text[5:7]), int(text[8:10]), int(text[11:13]), int(text[14:16]), int(text[17:19]))
    if text[19:20] != b"." or text[29:] != b"Z":
        raise ValueError(f"not a log time: {text!r}")
    return calendar.timegm(date) * _SECOND + int(text[20:29])


def records(path: Path) -> Iterator[Record]:
    """Iterate over all records, oldest first."""
    for file in files(path):
        with file.open("rb") as lines:
            for line in lines:
                record = parse(line.removesuffix(b"\n"))
                if record is not None:
                    yield record


def tail(path: Path, count: int) -> list[Record]:
    """Read the records of the last `count` lines of output; pieces of one line of a stream count once.

    Only as much of the files is read, from their ends, as is needed.
    """
    found: deque[Record] = deque()
    open_streams: set[Stream] = set()  # their oldest line found may have begun earlier
    lines, beyond = 0, 0
    for record in _backwards(path):
        if record.partial and record.stream in open_streams:
            found.appendleft(record)
            continue
        open_streams.discard(record.stream)
        if lines < count:
            lines += 1
            open_streams.add(record.stream)
            found.appendleft(record)
            continue
        beyond += 1
        if not open_streams or beyond > LOOK_BACK:
            break
    return list(found)


def _backwards(path: Path) -> Iterator[Record]:
    for file in reversed(files(path)):
        for line in _lines_backwards(file):
            record = parse(line)
            if record is not None:
                yield record


def _lines_backwards(file: Path) -> Iterator[bytes]:
    """Iterate over a file's whole lines from the last to the first."""
    with file.open("rb") as source:
        if source.seek(0, 2) == 0:
            return
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n")
            while end >= 0:
                start = content.rfind(b"\n", 0, end)
                yield content[start + 1 : end]
                end = start
