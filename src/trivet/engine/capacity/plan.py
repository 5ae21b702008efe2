"""From what is to what should be: who may have how much memory from now on. Pure.

1. The room is the budget, or what the host has left for instances if that is less. Who isn't elastic keeps all, and
   of who is deaf nothing is expected: it may have no less than it holds.
2. Every elastic instance wants what it uses and will use in a moment, some headroom, and of the idle memory it holds
   what the tax leaves it. What a program uses is never taken: without swap it has nowhere to go.
3. Wants are met from the minimum up, by weight. What is left goes by weight to where peaks are forecast, and then to
   all, up to their limits, so that a quiet host bounds nobody.
4. What is taken is taken at once. It is given only when it has really come back: all that instances hold or may have
   never exceeds the room, unless it did before.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trivet.engine.capacity.model import Action, Budget, Host, Measure, Plan, Word
from trivet.engine.capacity.share import Claim, divide
from trivet.engine.capacity.size import size

HEADROOM = 8  # a part of what is used
LEAST = 64  # a part of the limit: smaller changes aren't worth a word
SMALLEST = 4 << 20


class Stake(msgspec.Struct, frozen=True, kw_only=True):
    """An elastic instance, what it wants and what it shall have in the end."""

    measure: Measure
    want: int
    target: int


def plan(budget: Budget, host: Host, measures: Sequence[Measure]) -> Plan:
    """Compute what each elastic instance may have from now on, and why it changes."""
    room = room_of(budget, host, measures)
    stakes, pool = _stakes(budget, room, measures)
    short = max(sum(stake.want for stake in stakes) - pool, 0)
    takes = [stake for stake in stakes if stake.target < _bound(stake.measure) and _matters(stake, stake.target)]
    gives = [stake for stake in stakes if stake.target > _bound(stake.measure)]
    taken = sum(_bound(stake.measure) - max(stake.target, stake.measure.held) for stake in takes if _slack(stake))
    committed = sum(max(_bound(stake.measure), stake.measure.held) for stake in stakes) - taken
    parts = divide(pool - committed, [_claim_of(stake) for stake in gives])
    given = [(stake, _bound(stake.measure) + part) for stake, part in zip(gives, parts, strict=True)]
    actions = [_take(stake, gives) for stake in takes]
    actions += [_give(stake, after) for stake, after in given if _matters(stake, after)]
    return Plan(room=room, short=short, actions=tuple(actions))


def room_of(budget: Budget, host: Host, measures: Sequence[Measure]) -> int:
    """Tell what instances can have together: the budget, or less where others use the host's memory, too."""
    reachable = host.available + sum(measure.resident for measure in measures)
    return max(min(budget.memory, reachable) - budget.reserve, 0)


def needed(measures: Sequence[Measure]) -> int:
    """Add up what can't be taken: what is used, and what was promised to be kept."""
    return sum(max(measure.used, measure.promise.minimum) for measure in measures)


def want(measure: Measure, tax: float) -> int:
    """Tell how much memory an instance should have, were there enough."""
    idle = max(measure.held - measure.used, 0)
    wanted = max(measure.used + measure.used // HEADROOM, measure.soon) + int((1 - tax) * idle)
    if measure.starved:
        wanted = max(wanted, 2 * _bound(measure))
    return min(max(wanted, _floor(measure)), measure.promise.maximum)


def _stakes(budget: Budget, room: int, measures: Sequence[Measure]) -> tuple[list[Stake], int]:
    elastic = [measure for measure in measures if measure.promise.elastic]
    pool = room - sum(measure.held for measure in measures if not measure.promise.elastic)
    wants = [want(measure, budget.tax) for measure in elastic]
    due = divide(pool, [_claim(measure, _floor(measure), most) for measure, most in zip(elastic, wants, strict=True)])
    for ceilings in ([measure.peak for measure in elastic], [measure.promise.maximum for measure in elastic]):
        rows = zip(elastic, due, ceilings, strict=True)
        due = divide(pool, [_claim(measure, part, ceiling) for measure, part, ceiling in rows])
    stakes = zip(elastic, wants, due, strict=True)
    return [Stake(measure=measure, want=most, target=target) for measure, most, target in stakes], pool


def _claim(measure: Measure, floor: int, ceiling: int) -> Claim:
    return Claim(floor=floor, ceiling=max(floor, ceiling), weight=measure.promise.weight)


def _claim_of(stake: Stake) -> Claim:
    return _claim(stake.measure, 0, stake.target - _bound(stake.measure))


def _floor(measure: Measure) -> int:
    needed = measure.held if measure.deaf else measure.used
    return min(max(measure.promise.minimum, needed), measure.promise.maximum)


def _bound(measure: Measure) -> int:
    return measure.allotted or measure.promise.maximum


def _slack(stake: Stake) -> bool:
    """Tell whether some of what is taken is free at once, as nothing was in it yet."""
    return _bound(stake.measure) > stake.measure.held


def _matters(stake: Stake, after: int) -> bool:
    """A change is worth it if it is large, or the last step to the limit, or somebody waits for it."""
    before, maximum = _bound(stake.measure), stake.measure.promise.maximum
    if after == before:
        return False
    starved = stake.measure.starved and after > before
    return starved or after == maximum or abs(after - before) >= max(maximum // LEAST, SMALLEST)


def _take(stake: Stake, gives: Sequence[Stake]) -> Action:
    measure = stake.measure
    hungry = [other.measure.promise.name for other in gives if other.measure.starved or other.want > other.measure.held]
    reason = f"{', '.join(hungry)} needs it" if len(hungry) == 1 else f"{', '.join(hungry)} need it"
    return Action(
        word=Word.TAKE,
        id=measure.promise.id,
        name=measure.promise.name,
        before=_bound(measure),
        after=stake.target,
        why=f"it uses {size(measure.used)} of the {size(_bound(measure))} it may have, "
        + (reason if hungry else "and all together may not have more than there is"),
    )


def _give(stake: Stake, after: int) -> Action:
    measure = stake.measure
    left = stake.want - after
    why = f"it uses {size(measure.used)} of the {size(_bound(measure))} it may have"
    if measure.starved:
        why += " and waits for more"
    if left > SMALLEST:
        why += f"; it wants {size(left)} more, which by its weight of {measure.promise.weight} it can't have now"
    return Action(
        word=Word.GIVE,
        id=measure.promise.id,
        name=measure.promise.name,
        before=_bound(measure),
        after=after,
        why=why,
    )


def warning(budget: Budget, host: Host, measures: Sequence[Measure], short: int, probability: float) -> str:
    """Say how things stand when memory is, or may soon be, short."""
    promised, used = sum(each.promise.maximum for each in measures), sum(each.used for each in measures)
    text = (
        f"{size(promised)} are promised and {size(used)} in use of {size(room_of(budget, host, measures))}; "
        f"the probability of a shortage is {probability:.0%}"
    )
    if host.stalled:
        text += f"; in {host.stalled:.0%} of the last 10 s something on this host waited for memory"
    return f"{text}, and {size(short)} that are wanted now are not there" if short else text
