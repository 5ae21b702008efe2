"""An instance's log, from the files its monitor writes, and as it grows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from trivet.base.clock import rfc3339
from trivet.base.error import Unsupported
from trivet.engine.instance.context import Context
from trivet.launch.frame import MAXIMUM, Type
from trivet.launch.log import Record, files, parse, records, tail

POLL = 0.05  # seconds between looks at a log that grows
BATCH = 256 << 10  # bytes read at once: what a client that does not read costs; others have a turn in between


class NoLog(Unsupported):
    """An instance whose output nobody keeps."""

    def __init__(self, name: str) -> None:
        super().__init__(f"instance {name} keeps no log", hint="it was made with --log-driver none")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a log, and how. Times are Unix nanoseconds, 0 for no bound; tail -1 is everything."""

    follow: bool = False
    tail: int = -1
    since: int = 0
    until: int = 0
    timestamps: bool = False
    stdout: bool = True
    stderr: bool = True


def check(context: Context, key: str) -> None:
    """Raise `NoLog` where nothing is kept."""
    record = context.table.find(key)
    if not record.plan.log.path:
        raise NoLog(record.name)


async def follow(context: Context, key: str, wanted: Wanted) -> AsyncIterator[tuple[Type, bytes]]:
    """Yield STDOUT and STDERR payloads, oldest first; with `follow` until the instance has ended."""
    path = Path(context.table.find(key).plan.log.path)
    growing = _Growing(path) if wanted.follow else None
    last = 0
    written = await asyncio.to_thread(_written, path, wanted)
    while batch := await asyncio.to_thread(_next, written):
        for record in batch:
            last = record.time
            if _in_range(record, wanted):
                yield _show(record, wanted)
    while growing is not None:
        ended = key not in context.watches  # asked before reading: what was written until then is read
        while (added := growing.read()) is not None:
            for record in added:
                if record.time > last and _in_range(record, wanted):
                    yield _show(record, wanted)
            await asyncio.sleep(0)
        if ended or (wanted.until and last > wanted.until):
            growing.close()
            return
        await asyncio.sleep(POLL)


def _written(path: Path, wanted: Wanted) -> Iterator[Record]:
    return iter(records(path) if wanted.tail < 0 else tail(path, wanted.tail))


def _next(source: Iterator[Record]) -> list[Record]:
    """Take the next records, about BATCH bytes."""
    batch: list[Record] = []
    size = 0
    for record in source:
        batch.append(record)
        size += len(record.content)
        if size >= BATCH:
            break
    return batch


def _in_range(record: Record, wanted: Wanted) -> bool:
    return (
        record.time >= wanted.since
        and (not wanted.until or record.time <= wanted.until)
        and (wanted.stdout if record.stream == "stdout" else wanted.stderr)
    )


def _show(record: Record, wanted: Wanted) -> tuple[Type, bytes]:
    kind = Type.STDOUT if record.stream == "stdout" else Type.STDERR
    if not wanted.timestamps:
        return kind, record.content
    return kind, (rfc3339(record.time).encode() + b" " + record.content)[:MAXIMUM]


class _Growing:
    """The part of a log written from now on, through rotations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        if self._open(path):
            self._seek_last_line()

    def _open(self, path: Path) -> bool:
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            return False
        return True

    def _seek_last_line(self) -> None:
        """Begin at the last line that is written already: the caller knows it by its time."""
        assert self._file is not None
        size = self._file.seek(0, 2)
        self._file.seek(max(size - MAXIMUM, 0))
        block = self._file.read(MAXIMUM)
        self._file.seek(size - len(block) + block.rfind(b"\n") + 1)

    def read(self) -> list[Record] | None:
        """Read some of what was added; None when that is all for now."""
        if self._file is None and not self._open(self._path):
            return None
        assert self._file is not None
        block = self._file.read(BATCH)
        if not block and (successor := self._successor(self._file)):
            block = self._file.read(BATCH)  # what came just before the rotation
            if not block:
                self._file.close()
                self._file = None
                return [] if self._open(successor) else None
        if not block:
            return None
        *lines, self._rest = (self._rest + block).split(b"\n")
        return [record for line in lines if (record := parse(line))]

    def _successor(self, file: BinaryIO) -> Path | None:
        """Find the file that was begun after an open one; the oldest there is if that was removed since."""
        inode, known = os.fstat(file.fileno()).st_ino, files(self._path)
        for number, path in enumerate(known):
            try:
                if path.stat().st_ino == inode:
                    return known[number + 1] if number + 1 < len(known) else None
            except FileNotFoundError:
                return None  # it is being rotated right now
        return known[0] if known else None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
