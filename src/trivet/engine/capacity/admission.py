"""May one more instance start? One small function per rule, the first that objects decides. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from trivet.engine.capacity.model import Budget, Promise, Verdict, Word
from trivet.engine.capacity.size import size


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when somebody asks: the room for all, and what those that run can't do without.

    `kept`, `promised` and `processors` are the sums of their minimums, maximums and processors.
    """

    budget: Budget
    kept: int
    promised: int
    processors: float
    room: int
    needed: int
    shortage: float = 0.0


Rule = Callable[[State, Promise], Verdict | None]


def admit(state: State, asked: Promise) -> Verdict:
    """Decide whether an instance may start with what it asks for."""
    for rule in RULES:
        verdict = rule(state, asked)
        if verdict is not None:
            return verdict
    return Verdict(Word.ADMIT, "there is room for it")


def _kept(state: State, asked: Promise) -> Verdict | None:
    """Minimums are kept for their instances, so they must fit into the memory there is."""
    if not asked.minimum or state.kept + asked.minimum <= state.budget.usable:
        return None
    return _refuse(
        f"its minimum of {size(asked.minimum)} and the {size(state.kept)} kept for others "
        f"are more than the {size(state.budget.usable)} there are"
    )


def _promised(state: State, asked: Promise) -> Verdict | None:
    """Limits may add up to more than there is, by the ratio."""
    bound = state.budget.memory_ratio * state.budget.memory
    if not asked.maximum or not bound or state.promised + asked.maximum <= bound:
        return None
    return _refuse(
        f"its limit of {size(asked.maximum)} and the {size(state.promised)} promised to others "
        f"are more than {state.budget.memory_ratio:g} times the {size(state.budget.memory)} there are"
    )


def _processors(state: State, asked: Promise) -> Verdict | None:
    """So may processors."""
    bound = state.budget.processor_ratio
    if not asked.processors or not bound or state.processors + asked.processors <= bound * state.budget.processors:
        return None
    return _refuse(
        f"its {asked.processors:g} processors and the {state.processors:g} promised to others "
        f"are more than {bound:g} times the {state.budget.processors:g} there are"
    )


def _free(state: State, asked: Promise) -> Verdict | None:
    """What is kept for it must be free, or be taken from those that don't need it, now."""
    free = max(state.room - state.needed, 0)
    if asked.minimum <= free:
        return None
    return _refuse(
        f"its minimum of {size(asked.minimum)} is not free: {size(state.needed)} of {size(state.room)} are in use"
    )


def _overbooked(state: State, asked: Promise) -> Verdict | None:
    """Whoever starts what doesn't fit hears of it before it matters."""
    promised = state.promised + asked.maximum
    if not asked.maximum or promised <= state.budget.usable:
        return None
    return Verdict(
        Word.WARN,
        f"with it {size(promised)} are promised of {size(state.budget.usable)}; "
        f"{size(state.needed)} are in use, and the probability of a shortage is {state.shortage:.1%}",
    )


RULES: tuple[Rule, ...] = (_kept, _promised, _processors, _free, _overbooked)


def _refuse(why: str) -> Verdict:
    return Verdict(Word.REFUSE, why)
