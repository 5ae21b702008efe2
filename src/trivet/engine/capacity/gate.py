"""The gate that every start passes: what is promised to those that are just starting counts, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trivet.base.error import Exhausted
from trivet.engine.capacity.admission import State, admit
from trivet.engine.capacity.journal import Journal
from trivet.engine.capacity.model import Promise, Verdict, Word


class NoCapacity(Exhausted):
    """An instance that can't start, as there isn't enough for it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"cannot start instance {name}: {why}",
            hint="see `trivet capacity`; stop another one, or ask for less with `trivet update`",
        )


class Gate:
    """Lets instances start, one decision at a time. `state` tells how things are, without those that are starting."""

    def __init__(self, journal: Journal, state: Callable[[tuple[Promise, ...]], State]) -> None:
        self._journal = journal
        self._state = state
        self._starting: dict[str, Promise] = {}

    def ask(self, asked: Promise) -> Verdict:
        """Tell what would be decided now."""
        if not (asked.minimum or asked.maximum or asked.processors):
            return Verdict(Word.ADMIT, "it was promised nothing")
        return admit(self._state(tuple(self._starting.values())), asked)

    @contextmanager
    def passing(self, asked: Promise) -> Iterator[None]:
        """Hold the instance's promise while it starts. Raises `NoCapacity`."""
        verdict = self.ask(asked)
        if verdict.word is not Word.ADMIT:
            self._journal.write(verdict.word, asked.id, asked.name, after=asked.maximum, why=verdict.why)
        if verdict.word is Word.REFUSE:
            raise NoCapacity(asked.name, verdict.why)
        self._starting[asked.id] = asked
        try:
            yield
        finally:
            del self._starting[asked.id]
