"""What is promised to all that run, added up as it changes: each start asks, and there may be thousands."""

from __future__ import annotations

from collections.abc import Container

from trivet.engine.capacity.model import Promise
from trivet.engine.capacity.sample import promise_of
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.store.record import Table

_NANO = 1_000_000_000


class Tally:
    """The promises of those that `watched` names and whose record says that they run; sums are as of `look`."""

    def __init__(self, table: Table[InstanceRecord], watched: Container[str]) -> None:
        self._table = table
        self._watched = watched
        self._counted: dict[str, Promise] = {}
        self._maximum = 0
        self._processors = 0  # in billionths: fractions that come and go would leave something behind
        self._changed = {record.id for record in table.all()}
        table.follow(self._changed.add)
        self.minimums: dict[str, int] = {}
        """What is kept for those that have a minimum."""

    @property
    def maximum(self) -> int:
        """The sum of the limits."""
        return self._maximum

    @property
    def processors(self) -> float:
        """The sum of the processors."""
        return self._processors / _NANO

    def look(self) -> None:
        """Take in what has changed."""
        early = []
        while self._changed:
            key = self._changed.pop()
            self._drop(key)
            record = self._table.get(key)
            if record is None or record.word not in (Word.RUNNING, Word.PAUSED):
                continue
            if key in self._watched:
                self._add(promise_of(record))
            else:
                early.append(key)  # an engine that starts hasn't come to it yet
        self._changed.update(early)

    def _add(self, promise: Promise) -> None:
        self._counted[promise.id] = promise
        self._maximum += promise.maximum
        self._processors += _nano(promise)
        if promise.minimum:
            self.minimums[promise.id] = promise.minimum

    def _drop(self, key: str) -> None:
        if gone := self._counted.pop(key, None):
            self._maximum -= gone.maximum
            self._processors -= _nano(gone)
            self.minimums.pop(key, None)


def _nano(promise: Promise) -> int:
    return round(promise.processors * _NANO)
