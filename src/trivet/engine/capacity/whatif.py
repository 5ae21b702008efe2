"""What would be, if further instances were started: asked of admission one after the other, nothing is started. Pure.

What they would use nobody knows. It is taken for what those that run use of their limits, at least their minimum;
where nothing runs to learn from, for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from trivet.engine.capacity.admission import State, admit
from trivet.engine.capacity.model import Measure, Promise, Verdict, Word

MOST = 1000
"""Instances after which nobody counts on."""

Shortage = Callable[[int, int], float]
"""The probability of a shortage when so much more is used, and so much more promised."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One further instance: what would be decided, and how things would stand with it if it was let in."""

    verdict: Verdict
    promised: int
    kept: int
    processors: float
    shortage: float


def steps(state: State, asked: Promise, measures: Sequence[Measure], shortage: Shortage) -> Iterator[Step]:
    """Let one more in, and again, until one is refused."""
    expected, used = expectation(asked, measures), 0
    for number in range(MOST):
        verdict = admit(state, asked)
        if verdict.word is not Word.REFUSE:
            used += expected
            state = msgspec.structs.replace(
                state,
                kept=state.kept + asked.minimum,
                promised=state.promised + asked.maximum,
                processors=state.processors + asked.processors,
                needed=state.needed + max(expected, asked.minimum),
                shortage=shortage(used, (number + 1) * asked.maximum),
            )
        yield Step(
            verdict=verdict,
            promised=state.promised,
            kept=state.kept,
            processors=state.processors,
            shortage=state.shortage,
        )
        if verdict.word is Word.REFUSE:
            return


def expectation(asked: Promise, measures: Sequence[Measure]) -> int:
    """Guess what an instance will use."""
    limited = [each for each in measures if each.promise.maximum]
    promised, used = sum(each.promise.maximum for each in limited), sum(each.used for each in limited)
    return max(asked.minimum, int(asked.maximum * (used / promised if promised else 1.0)))
