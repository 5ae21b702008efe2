"""Capacity's decisions, with the engine's own functions: admission, dividing, forecasting, and a simulated host."""

from __future__ import annotations

import random
from collections.abc import Callable
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.cli import capacity_picture
from trivet.client.schema_capacity import CapacityMoment
from trivet.engine.capacity import forecast, whatif
from trivet.engine.capacity.admission import State, admit
from trivet.engine.capacity.history import INTERVAL, History
from trivet.engine.capacity.model import Action, Budget, Host, Measure, Promise, Word
from trivet.engine.capacity.plan import SMALLEST, plan
from trivet.engine.capacity.score import Score
from trivet.engine.capacity.share import Claim, divide
from trivet.isolation.elastic import really

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30

sizes = st.integers(0, 64 * GIBIBYTE)
weights = st.integers(2, 262144)


def promised(name: str, minimum: int, maximum: int, weight: int = 1024) -> Promise:
    """An instance's promise in MiB."""
    return Promise(
        id=name, name=name, level="container", minimum=minimum * MEBIBYTE, maximum=maximum * MEBIBYTE, weight=weight
    )


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    """A claim whose floor isn't above its ceiling."""
    floor, more = draw(sizes), draw(sizes)
    return Claim(floor=floor, ceiling=floor + more, weight=draw(weights))


@given(sizes, st.lists(claims(), max_size=8))
def test_nothing_is_divided_that_is_not_there(pool: int, asked: list[Claim]) -> None:
    """Everybody gets at least their floor, nobody more than their ceiling, and all together no more than there is."""
    parts = divide(pool, asked)
    assert all(claim.floor <= part <= claim.ceiling for claim, part in zip(asked, parts, strict=True))
    assert sum(parts) <= max(pool, sum(claim.floor for claim in asked))


@given(sizes, st.lists(claims(), min_size=1, max_size=8))
def test_nothing_is_left_over_while_somebody_wants_it(pool: int, asked: list[Claim]) -> None:
    """What could be given is, but for the halves of bytes."""
    parts = divide(pool, asked)
    left = pool - sum(parts)
    missing = sum(claim.ceiling - part for claim, part in zip(asked, parts, strict=True))
    assert left <= 0 or missing <= 0 or min(left, missing) <= 64 * len(asked)


def test_it_is_divided_by_weight() -> None:
    """Of two that want all, the one with three times the weight gets three times as much."""
    parts = divide(400, [Claim(floor=0, ceiling=1000, weight=3), Claim(floor=0, ceiling=1000, weight=1)])
    assert parts == [300, 100]


@st.composite
def measured(draw: st.DrawFn) -> Measure:
    """An instance in any state that can be measured."""
    maximum = draw(st.integers(8 * MEBIBYTE, 16 * GIBIBYTE))
    minimum = draw(st.integers(0, maximum))
    held = draw(st.integers(0, maximum))
    used = draw(st.integers(0, held))
    allotted = draw(st.integers(max(held, 1), maximum)) if draw(st.booleans()) else maximum
    name = f"i{draw(st.integers(0, 1 << 60))}"
    asked = Promise(id=name, name=name, level="vm", minimum=minimum, maximum=maximum, weight=draw(weights))
    return Measure(
        promise=asked, held=held, used=used, resident=held, allotted=allotted, soon=draw(st.integers(0, maximum)),
        peak=draw(st.integers(0, maximum)),
        starved=draw(st.booleans()),
    )  # fmt: skip


crowds = st.lists(measured(), max_size=8, unique_by=lambda each: each.promise.id)


def carried_out(measures: list[Measure], actions: tuple[Action, ...]) -> list[Measure]:
    """The same instances after what was decided."""
    after = {action.id: action.after for action in actions}
    return [msgspec.structs.replace(each, allotted=after.get(each.promise.id, each.allotted)) for each in measures]


def committed(measures: list[Measure]) -> int:
    """What all could fill without asking."""
    elastic = sum(max(each.held, each.allotted) for each in measures if each.promise.elastic)
    return elastic + sum(each.held for each in measures if not each.promise.elastic)


@given(
    st.integers(GIBIBYTE, 32 * GIBIBYTE),
    st.floats(0, 1),
    crowds,
)
def test_a_plan_never_gives_what_is_not_there(memory: int, tax: float, measures: list[Measure]) -> None:
    """Whatever is decided, instances can't fill more than the room afterwards, unless they could before."""
    budget = Budget(memory=memory, processors=8, tax=tax)
    made = plan(budget, Host(memory=memory, available=memory), measures)
    after = carried_out(measures, made.actions)
    assert committed(after) <= max(made.room, committed(measures))


@given(
    st.integers(GIBIBYTE, 32 * GIBIBYTE),
    st.floats(0, 1),
    crowds,
)
def test_a_plan_takes_nothing_that_is_used_or_kept(memory: int, tax: float, measures: list[Measure]) -> None:
    """Nobody is left with less than their minimum or what they use, or given more than their limit; each hears why."""
    budget = Budget(memory=memory, processors=8, tax=tax)
    made = plan(budget, Host(memory=memory, available=memory), measures)
    known = {each.promise.id: each for each in measures}
    for action in made.actions:
        measure = known[action.id]
        assert measure.promise.elastic
        assert action.why
        assert action.after <= measure.promise.maximum
        if action.word is Word.TAKE:
            assert action.after >= max(measure.promise.minimum, measure.used)
        assert (action.word is Word.GIVE) == (action.after > action.before)


class Simulation:
    """A host of 32 GiB scaled to 1024 MiB: instances with loads, and the engine's plan once a second."""

    def __init__(self, *promises: Promise, tax: float = 0.75) -> None:
        self.budget = Budget(memory=1024 * MEBIBYTE, processors=8, tax=tax)
        self.load = {each.name: 40 for each in promises}
        self.measures = [Measure(promise=each, held=0, used=0, resident=0, allotted=each.maximum) for each in promises]
        self.history = History()
        self.short = 0
        self.clock = 0.0

    def has(self, name: str) -> int:
        """What an instance uses, in MiB."""
        return next(each.used for each in self.measures if each.promise.name == name) // MEBIBYTE

    def step(self, seconds: int) -> None:
        """Let loads grow, by at most 100 MiB a second and into what is allotted, and the engine decide."""
        for _ in range(seconds):
            self.measures = [self._grown(each) for each in self.measures]
            assert sum(each.held for each in self.measures) <= self.budget.memory, "the host has no memory left"
            self.history.add(self.clock, {each.promise.id: each.used for each in self.measures})
            self.clock += 1
            made = plan(self.budget, Host(memory=1 << 40, available=1 << 40), self.measures)
            self.short = made.short
            self.measures = carried_out(self.measures, made.actions)

    def _grown(self, measure: Measure) -> Measure:
        asked = self.load[measure.promise.name] * MEBIBYTE
        used = min(asked, measure.used + 100 * MEBIBYTE, measure.allotted)
        key = measure.promise.id
        soon = forecast.soon(measure.used, self.history.rate(key), measure.promise.maximum)
        peak = forecast.peak(self.history.of(key), INTERVAL, measure.promise.maximum)
        return msgspec.structs.replace(
            measure,
            used=used,
            held=used,
            resident=used,
            soon=max(soon, used),
            peak=max(peak, used),
            starved=used < asked,
        )


def reference() -> Simulation:
    """The reference example: 36 GB promised of 32."""
    return Simulation(
        promised("web1", 64, 256), promised("web2", 64, 256), promised("db", 96, 384, 4096), promised("app", 64, 256)
    )


def test_a_database_gets_all_it_was_promised() -> None:
    """With the others idle, a database whose load rises has its whole limit within 30 seconds."""
    host = reference()
    host.step(20)
    host.load["db"] = 384
    host.step(30)
    assert host.has("db") == 384


def test_when_all_rise_the_weights_decide() -> None:
    """When all want all at once, nobody gets more than there is, and more weight means more memory."""
    host = reference()
    host.step(20)
    host.load = {"web1": 256, "web2": 256, "db": 384, "app": 256}
    host.step(60)
    assert host.short > 0
    assert host.has("db") == 384
    assert sum(host.has(name) for name in host.load) > 1000, "memory lies idle while somebody waits"
    assert abs(host.has("web1") - host.has("app")) < 32


def test_memory_comes_back_from_those_that_let_go() -> None:
    """When one needs less again, who waited gets it."""
    host = reference()
    host.load = {"web1": 256, "web2": 256, "db": 384, "app": 256}
    host.step(60)
    host.load["db"] = 40
    host.step(30)
    assert [host.has(name) for name in ("web1", "web2", "app")] == [256, 256, 256]


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.sampled_from(("web1", "web2", "db", "app")), st.integers(0, 400)), max_size=8))
def test_no_load_brings_the_host_down(loads: list[dict[str, int]]) -> None:
    """However loads rise and fall, what is held fits into the host, and nobody ends below their minimum."""
    host = reference()
    host.step(5)
    for load in loads:
        host.load |= load
        host.step(8)
    for each in host.measures:
        assert each.allotted >= each.promise.minimum


def test_idle_memory_is_taxed() -> None:
    """Of what is held and not used, a high tax takes more than a low one."""
    asked = promised("idle", 64, 1024, 4096)
    hungry = Measure(
        promise=promised("hungry", 64, 1024), held=400 * MEBIBYTE, used=400 * MEBIBYTE, resident=400 * MEBIBYTE,
        allotted=400 * MEBIBYTE, starved=True,
    )  # fmt: skip
    idle = Measure(promise=asked, held=600 * MEBIBYTE, used=100 * MEBIBYTE, resident=600 * MEBIBYTE,
                   allotted=600 * MEBIBYTE)  # fmt: skip
    left = []
    for tax in (0.0, 0.5, 1.0):
        budget = Budget(memory=GIBIBYTE, processors=1, tax=tax)
        made = plan(budget, Host(memory=GIBIBYTE, available=GIBIBYTE), [idle, hungry])
        left += [action.after for action in made.actions if action.name == "idle"] or [idle.allotted]
    assert left[0] > left[1] > left[2] >= 100 * MEBIBYTE


def state(*promises: Promise, needed: int = 0, memory: int = 1024, **changes: float) -> State:
    """A host of 1024 MiB with these instances."""
    budget = Budget(memory=memory * MEBIBYTE, processors=2, **changes)  # type: ignore[arg-type]
    return State(
        budget=budget,
        kept=sum(each.minimum for each in promises),
        promised=sum(each.maximum for each in promises),
        processors=sum(each.processors for each in promises),
        room=memory * MEBIBYTE,
        needed=needed * MEBIBYTE,
    )


@pytest.mark.parametrize(
    ("found", "asked", "word", "said"),
    [
        (state(), promised("a", 0, 512), Word.ADMIT, "room"),
        (state(promised("a", 600, 600)), promised("b", 500, 600), Word.REFUSE, "minimum of 500 MiB and the 600 MiB"),
        (state(promised("a", 0, 1800), memory_ratio=2), promised("b", 0, 300), Word.REFUSE, "more than 2 times"),
        (state(promised("a", 0, 9000)), promised("b", 0, 300), Word.WARN, "9.08 GiB are promised"),
        (state(needed=900), promised("a", 200, 300), Word.REFUSE, "is not free: 900 MiB of 1 GiB are in use"),
        (state(promised("a", 0, 900), needed=100), promised("b", 0, 300), Word.WARN, "1.17 GiB are promised of 1 GiB"),
    ],
)
def test_who_may_start(found: State, asked: Promise, word: Word, said: str) -> None:
    """An instance is admitted, admitted with a warning, or refused, with the numbers that decided."""
    verdict = admit(found, asked)
    assert (verdict.word, said in verdict.why) == (word, True), verdict


def test_processors_are_promised_up_to_their_ratio() -> None:
    """A machine with more virtual processors than the ratio allows isn't started."""
    asked = Promise(id="a", name="a", level="vm", processors=5)
    assert admit(state(processor_ratio=2), asked).word is Word.REFUSE
    assert admit(state(processor_ratio=4), asked).word is Word.ADMIT


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_a_stated_probability_is_what_happens(chance: float) -> None:
    """Of random walks whose probability of a shortage is stated as p, about p run short."""
    walk = random.Random(f"walk {chance}")
    hits, stated = 0, 0.0
    rounds, steps = 400, 60
    spread = {0.1: 1.645, 0.5: 0.6745, 0.9: 0.1257}[chance]
    for _ in range(rounds):
        totals = [10**9]
        for _ in range(700):
            totals.append(totals[-1] + round(walk.gauss(0, 1000)))
        room = totals[-1] + round(spread * 1000 * steps**0.5)
        stated += forecast.shortage(totals, INTERVAL, room, None)
        now = totals[-1]
        ran = False
        for _ in range(steps):
            now += round(walk.gauss(0, 1000))
            ran = ran or now > room
        hits += ran
    assert abs(stated / rounds - hits / rounds) < 0.1


def test_what_fits_can_not_be_short() -> None:
    """If all limits fit into the room there is no shortage, whatever is used."""
    assert forecast.shortage([100, 900, 100, 900], INTERVAL, 1000, 1000) == 0
    assert forecast.shortage([100, 900, 100, 900], INTERVAL, 1000, 1001) > 0
    assert forecast.shortage([1100], INTERVAL, 1000, None) == 1


def test_a_peak_is_seen_coming() -> None:
    """A forecast follows a trend, remembers a burst, and knows the limit."""
    rising = list(range(100 * MEBIBYTE, 200 * MEBIBYTE, 10 * MEBIBYTE))
    assert forecast.peak(rising, INTERVAL, 0) > 400 * MEBIBYTE
    assert forecast.peak(rising, INTERVAL, 300 * MEBIBYTE) == 300 * MEBIBYTE
    assert forecast.peak([10, 90, *([10] * 8), 90, 10], INTERVAL, 0) == 90
    assert forecast.peak([], INTERVAL, 100) == 0


def test_small_changes_are_not_worth_a_word() -> None:
    """A host at rest is left alone."""
    each = Measure(promise=promised("a", 64, 768), held=128 * MEBIBYTE, used=128 * MEBIBYTE, resident=128 * MEBIBYTE,
                   allotted=512 * MEBIBYTE - SMALLEST // 2, peak=500 * MEBIBYTE)  # fmt: skip
    other = Measure(promise=promised("b", 64, 1024), held=64 * MEBIBYTE, used=64 * MEBIBYTE, resident=64 * MEBIBYTE,
                    allotted=512 * MEBIBYTE, peak=500 * MEBIBYTE)  # fmt: skip
    budget = Budget(memory=1024 * MEBIBYTE, processors=1)
    assert plan(budget, Host(memory=1 << 40, available=1 << 40), [each, other]).actions == ()


def test_who_goes_up_and_down_as_ever_needs_nothing_new() -> None:
    """Growth is what goes beyond the last minute's most; a start or an end is no growth of all."""
    seen = History()
    for moment in range(30):
        seen.add(float(moment), {"one": 100 if moment % 2 else 60})
    assert seen.rate("one") <= 0
    seen.add(30.0, {"one": 160, "two": 500})
    assert 20 <= seen.rate("one") <= 60
    assert seen.totals()[0] >= 560
    seen.add(31.0, {"one": 160})
    assert seen.totals()[0] <= 160


def test_a_trend_of_a_few_seconds_is_no_trend() -> None:
    """What grew while it began isn't taken to go on like that for five minutes."""
    began = [200, 260, 300, 310, 311, 312]
    assert forecast.shortage(began, INTERVAL, 1000, None) < 0.7
    assert forecast.shortage([*began, *range(330, 900, 20)], INTERVAL, 1000, None) > 0.9


def test_a_balloon_that_is_a_lie_counts_for_nothing() -> None:
    """A guest that says it gave memory back, and still has it, holds what QEMU's memory shows."""
    assert really(192 << 20, 400 << 20) == 192 << 20
    assert really(192 << 20, 1024 << 20) == 768 << 20


def test_nothing_is_expected_of_who_does_not_heed() -> None:
    """One who waits gets another's idle memory when a third one doesn't give back what it has."""

    def measure(name: str, used: int, allotted: int, **more: bool) -> Measure:
        return Measure(promise=promised(name, 32, 300), held=used * MEBIBYTE, used=used * MEBIBYTE, resident=0,
                       allotted=allotted * MEBIBYTE, **more)  # fmt: skip

    deaf = msgspec.structs.replace(measure("deaf", 80, 256, deaf=True), held=256 * MEBIBYTE)
    budget, host = Budget(memory=704 * MEBIBYTE, processors=1), Host(memory=GIBIBYTE, available=GIBIBYTE)
    made = plan(budget, host, [deaf, measure("idle", 1, 202), measure("busy", 246, 246, starved=True)])
    assert [(action.word, action.name) for action in made.actions] == [(Word.TAKE, "idle"), (Word.GIVE, "busy")]
    assert made.actions[1].after == 300 * MEBIBYTE


def test_a_prophet_has_the_best_score() -> None:
    """Who says 1 before each shortage and 0 else scores 0, who says one half 0.25, and who is always wrong 1."""
    found = []
    ways: list[Callable[[bool], float]] = [float, lambda short: 0.5, lambda short: float(not short)]
    for say in ways:
        score = Score(10.0)
        for moment in range(0, 400, 20):  # each statement's horizon has one outcome of its own
            short = moment % 40 == 0
            score.add(moment, say(short), short=False)
            score.add(moment + 5, say(short), short=short)
        score.add(1000, 0.0, short=False)
        assert score.count == 40
        found.append(score.brier)
    assert found == [0.0, 0.25, 1.0]


def test_reliability_is_told_by_what_was_said() -> None:
    """A table of what was said and how often it came true; what is still open isn't counted."""
    score = Score(5.0)
    for number in range(100):
        score.add(number * 10, 0.32, short=False)
        score.add(number * 10 + 2, 0.97, short=number % 4 == 0)
    assert score.count == 198
    low, high = score.table()
    assert (low.count, round(low.stated, 2), low.observed) == (99, 0.32, 25 / 99)
    assert (high.count, round(high.stated, 2)) == (99, 0.97)


def test_thinking_of_more_is_what_starting_them_would_say() -> None:
    """One is let in after the other until admission refuses; the sums and the probability grow with each."""
    running = promised("db", 1024, 4096)
    measure = Measure(promise=running, held=2048 * MEBIBYTE, used=1024 * MEBIBYTE, resident=2048 * MEBIBYTE)
    budget = Budget(memory=8192 * MEBIBYTE, processors=8)
    state = State(
        budget=budget,
        kept=running.minimum,
        promised=running.maximum,
        processors=running.processors,
        room=budget.usable,
        needed=1024 * MEBIBYTE,
    )
    asked = promised("new", 2048, 4096)
    used: list[int] = []

    def shortage(more: int, promised_more: int) -> float:
        used.append(more)
        return more / (16384 * MEBIBYTE)

    found = list(whatif.steps(state, asked, [measure], shortage))
    assert [step.verdict.word for step in found] == [Word.ADMIT, Word.WARN, Word.WARN, Word.REFUSE]
    assert [step.promised // MEBIBYTE for step in found] == [8192, 12288, 16384, 16384]
    assert [step.kept // MEBIBYTE for step in found] == [3072, 5120, 7168, 7168]
    assert [size // MEBIBYTE for size in used] == [2048, 4096, 6144]  # its minimum, more than a quarter of its limit
    assert [step.shortage for step in found] == [0.125, 0.25, 0.375, 0.375]
    assert admit(state, asked).word is found[0].verdict.word
    assert whatif.expectation(promised("large", 0, 8192), [measure]) == 2048 * MEBIBYTE
    assert whatif.expectation(promised("large", 0, 8192), []) == 8192 * MEBIBYTE


def test_the_picture_draws_what_was_measured() -> None:
    """A line for each figure with a gap where nothing was measured, a bar where it was short; it is well-formed."""
    rows = [
        CapacityMoment(
            time=1000.0 + 5 * n + (500 if n >= 10 else 0),
            room=100 * MEBIBYTE,
            promised=150 * MEBIBYTE,
            used=n * MEBIBYTE,
            forecast=2 * n * MEBIBYTE,
            shortage=0.0,
            short=n == 19,
        )
        for n in range(20)
    ]
    tree = ElementTree.fromstring(capacity_picture.draw(rows))
    space = "{http://www.w3.org/2000/svg}"
    lines = [path.get("d", "") for path in tree.iter(f"{space}path") if path.get("fill") == "none"]
    assert [line.count("M") for line in lines] == [2, 2, 2, 2]
    assert [line.count("L") for line in lines] == [18, 18, 18, 18]
    assert len([bar for bar in tree.iter(f"{space}rect") if bar.get("width") == "3"]) == 1
    assert "nothing was measured" in capacity_picture.draw([])
