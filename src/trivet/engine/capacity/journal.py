"""What was decided, kept over restarts: a line of JSON each, in a file that is turned over when it is full."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path

import msgspec

from trivet.base.clock import now_ns, rfc3339
from trivet.client.schema_capacity import Decision

KEPT = 1000
SIZE = 1 << 20

log = logging.getLogger(__name__)


class Journal:
    """The decisions of one engine, the last KEPT of them at hand. A disk that is full loses lines, not decisions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: deque[Decision] = deque(self._load(), maxlen=KEPT)

    def write(self, word: str, key: str, name: str, *, before: int = 0, after: int = 0, why: str) -> Decision:
        """Record a decision that was made now."""
        made = Decision(time=rfc3339(now_ns()), word=word, id=key, name=name, before=before, after=after, why=why)
        self._kept.append(made)
        log.debug("%s %s: %s", word, name, why)
        try:
            if self._path.exists() and self._path.stat().st_size > SIZE:
                self._path.rename(self._path.with_suffix(".old"))
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(made) + b"\n")
        except OSError as error:
            log.error("cannot write %s: %s", self._path, error)
        return made

    def read(self, key: str = "", limit: int = KEPT) -> list[Decision]:
        """Return the last decisions, of one instance or of all, oldest first."""
        found = [each for each in self._kept if not key or each.id == key]
        return found[-limit:] if limit else []

    def _load(self) -> list[Decision]:
        found = []
        for path in (self._path.with_suffix(".old"), self._path):
            try:
                lines = path.read_bytes().splitlines()
            except OSError:
                continue
            for line in lines[-KEPT:]:
                try:
                    found.append(msgspec.json.decode(line, type=Decision))
                except msgspec.DecodeError:  # half a line: somebody was killed, or the disk was full
                    continue
        return found
