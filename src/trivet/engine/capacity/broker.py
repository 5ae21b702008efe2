"""One engine's capacity: the face that doors and starts ask, and the memory broker's loop.

    sample ──▶ forecast ──▶ plan ──▶ take, then give ──▶ journal
       ▲                                                    │
       └── 1 s; 0.25 s while somebody waits; 10 s while nothing is elastic

All decisions are the pure functions' beside this file; here they meet the drivers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from trivet.base.error import TrivetError
from trivet.client.schema_capacity import (
    Capacity,
    CapacityHistory,
    CapacityMoment,
    CapacityPlan,
    Decision,
    PlanRequest,
    PlanStep,
    Reliability,
    Share,
)
from trivet.engine.capacity import forecast, merge, plan, sample, whatif
from trivet.engine.capacity.admission import State
from trivet.engine.capacity.gate import Gate
from trivet.engine.capacity.history import INTERVAL, KEPT, History
from trivet.engine.capacity.journal import Journal
from trivet.engine.capacity.model import WEIGHT, Action, Budget, Host, Measure, Promise, Word
from trivet.engine.capacity.score import Score
from trivet.engine.capacity.tally import Tally
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.isolation.driver import Elastic
from trivet.isolation.plan import Level

CALM, HURRIED, IDLE = 1.0, 0.25, 10.0
MODESTY = 100
"""How many times as long as a round took to pause after it while nothing is elastic: many are looked at less often."""
WARNING = 0.05
"""A probability of a shortage that is worth a word."""
QUIET = 60.0
FRESH = 0.25  # seconds for which what was seen of the machine is good enough for a start
"""Seconds between two warnings."""

STUBBORN = 10.0
"""Seconds after which nothing more is expected of who has given nothing back."""
HANDS = 16
"""Instances that are given or taken memory at the same time."""

_FAREWELL = 5.0

log = logging.getLogger(__name__)


class _Standing(NamedTuple):
    """How things stood when `host` and `measures` were looked at."""

    host: Host
    measures: dict[str, Measure]
    room: int
    needed: int
    shortage: float


class Broker:
    """Watches what runs, and moves memory between those that agreed to it. Belongs to the event loop's thread."""

    def __init__(self, context: Context, budget: Budget, journal: Path) -> None:
        self.budget = budget
        self.journal = Journal(journal)
        self.gate = Gate(self.journal, self._state)
        self._context = context
        self._history = History()
        self._tally = Tally(context.table, context.watches)
        self._measures: dict[str, Measure] = {}
        self._standing: _Standing | None = None
        self._targets: dict[str, tuple[Promise, int]] = {}
        self._waited: dict[str, tuple[float, float]] = {}
        self._owing: dict[str, tuple[float, int, bool]] = {}
        self._busy: dict[str, asyncio.Task[bool]] = {}
        # Threads of its own: guests that don't answer must not hold up what else the engine does.
        self._hands = ThreadPoolExecutor(HANDS, thread_name_prefix="allot")
        self._host, self._looked = sample.host(), time.monotonic()
        self._warned = self._noted = -QUIET
        self._moments: deque[CapacityMoment] = deque(maxlen=KEPT)
        self._score = Score(forecast.HORIZON)
        self._wake = asyncio.Event()

    def passing(self, record: InstanceRecord) -> AbstractContextManager[None]:
        """Let an instance start. Raises `NoCapacity`."""
        asked = sample.promise_of(record)
        if asked.elastic:
            self._wake.set()
        return self.gate.passing(asked)

    def advise(self, record: InstanceRecord) -> str:
        """Tell what would be said if an instance that was just made started now; "" for nothing."""
        verdict = self.gate.ask(sample.promise_of(record))
        return "" if verdict.word is Word.ADMIT else verdict.why

    async def run(self) -> None:
        """Go round until cancelled; one round's trouble doesn't end it."""
        pause = CALM
        if self.budget.merge:
            try:
                merge.switch_on()
            except TrivetError as error:
                log.warning("%s", error)
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
                await asyncio.sleep(CALM)  # who wakes us is only about to start
            self._wake.clear()
            began = time.monotonic()
            try:
                pause = await self._round()
                if pause == IDLE:
                    pause = max(pause, MODESTY * (time.monotonic() - began))
            except Exception:
                log.exception("the memory broker left out a round")
                pause = IDLE

    async def let_go(self) -> None:
        """Bound nobody any more: an engine that ends leaves instances as it started them."""
        records = [record for record in sample.running(self._context) if sample.promise_of(record).elastic]
        for task in list(self._busy.values()):
            task.cancel()
        lifted = (self._allot(record, record.plan.limits.memory) for record in records)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*lifted), _FAREWELL)

    async def think(self, wish: PlanRequest) -> CapacityPlan:
        """Tell what would come of further instances. Nothing is started."""
        await self._look()
        found = list(self._measures.values())
        asked = Promise(
            id="",
            name="",
            level="",
            minimum=wish.memory_reservation,
            maximum=wish.memory,
            weight=wish.cpu_shares or WEIGHT,
            processors=wish.cpus,
        )
        more = list(whatif.steps(self._state(()), asked, found, partial(self._shortage, found)))
        fits = sum(each.verdict.word is not Word.REFUSE for each in more)
        return CapacityPlan(
            steps=[_step(number, each) for number, each in enumerate(more[: wish.count], start=1)],
            fits=fits,
            endless=fits == whatif.MOST,
            expected=whatif.expectation(asked, found),
        )

    def history(self) -> CapacityHistory:
        """Return how things stood in the last hour, and how good what was said was."""
        rows = [Reliability(count=b.count, stated=round(b.stated, 4), observed=b.observed) for b in self._score.table()]
        judged, brier = self._score.count, round(self._score.brier, 4)
        return CapacityHistory(moments=list(self._moments), judged=judged, brier=brier, table=rows)

    def decisions(self, ref: str, limit: int) -> list[Decision]:
        """Return what was decided, about one instance or all, oldest first."""
        return self.journal.read(self._context.table.find(ref).id if ref else "", limit)

    async def show(self) -> Capacity:
        """Measure, and describe everything."""
        await self._look()
        found = list(self._measures.values())
        return Capacity(
            memory=self.budget.memory,
            reserve=self.budget.reserve,
            memory_ratio=self.budget.memory_ratio,
            processors=self.budget.processors,
            processor_ratio=self.budget.processor_ratio,
            tax=self.budget.tax,
            room=plan.room_of(self.budget, self._host, found),
            promised=sum(each.promise.maximum for each in found),
            promised_processors=sum(each.promise.processors for each in found),
            kept=sum(each.promise.minimum for each in found),
            used=sum(each.used for each in found),
            forecast=sum(each.peak for each in found),
            stolen=round(sum(self._stolen(each) for each in found), 3),
            shortage=round(self._shortage(found), 4),
            horizon=forecast.HORIZON,
            stalled=self._host.stalled,
            merged=merge.saved(),
            shares=[self._share(each) for each in found],
        )

    # --- one round ----------------------------------------------------------------------------------

    async def _round(self) -> float:
        await self._look()
        found = list(self._measures.values())
        made = plan.plan(self.budget, self._host, found)
        self._warn(found, made.short)
        self._note(found, made.short)
        # What was only allowed and not used yet is free at once, if it is no longer allowed before others may have it.
        at_once = [action for action in made.actions if action.word is Word.TAKE and self._quick(action.id)]
        free = all(await asyncio.gather(*map(self._act, at_once)))
        others = [action for action in made.actions if action not in at_once and (free or action.word is Word.TAKE)]
        await self._begin([action for action in others if action.id not in self._busy])
        if not any(each.promise.elastic for each in found):
            return IDLE
        return HURRIED if any(each.starved and self._quick(each.promise.id) for each in found) else CALM

    async def _look(self) -> None:
        """Measure host and instances, and remember."""
        records = sample.running(self._context)
        self._host = await asyncio.to_thread(sample.host)
        found = await asyncio.to_thread(sample.measures, self._context, records, self._measures)
        self._history.add(time.monotonic(), {each.promise.id: each.used for each in found})
        self._measures = {each.promise.id: self._known(each) for each in found}
        for known in (self._targets, self._waited, self._owing):
            for gone in [key for key in known if key not in self._measures]:
                del known[gone]
        for each in found:
            begin, last = self._waited.get(each.promise.id, (0.0, 0.0))
            # Threads take what they waited for with them when they end.
            self._waited[each.promise.id] = (begin + max(each.waited - last, 0.0), each.waited)

    def _known(self, measure: Measure) -> Measure:
        """Add the forecast, and what was last decided: a balloon takes its time to get there."""
        maximum = measure.promise.maximum
        key = measure.promise.id
        measure = msgspec.structs.replace(
            measure,
            soon=forecast.soon(measure.used, self._history.rate(key), maximum),
            peak=forecast.peak(self._history.of(key), INTERVAL, maximum),
        )
        asked, target = self._targets.get(key, (None, 0))
        if measure.promise.level == Level.VM and asked == measure.promise and not measure.deaf:  # else it was changed
            measure = msgspec.structs.replace(measure, allotted=target)
        measure = self._heard(measure)
        if maximum and (measure.allotted or maximum) > maximum - plan.SMALLEST:  # at its limit, nobody can give it more
            measure = msgspec.structs.replace(measure, starved=False)
        return measure

    def _heard(self, measure: Measure) -> Measure:
        """Expect nothing of who gives nothing back for a while; say so once."""
        key, now = measure.promise.id, time.monotonic()
        target = self._targets.get(key, (None, 0))[1]
        if not measure.deaf and (not target or measure.held <= target + plan.SMALLEST):
            self._owing.pop(key, None)
            return measure
        since, held, said = self._owing.get(key, (now, measure.held, False))
        if measure.held < held - plan.SMALLEST:
            since, held, said = now, measure.held, False
        deaf = measure.deaf or now - since > STUBBORN
        if deaf and not said and now - since > STUBBORN:
            said = True
            why = "it does not give back what it was told to, or does not answer: nothing is expected of it"
            self.journal.write(Word.WARN, key, measure.promise.name, before=measure.held, after=target, why=why)
        self._owing[key] = since, held, said
        return msgspec.structs.replace(measure, deaf=deaf)

    def _quick(self, key: str) -> bool:
        """Tell whether an instance is bounded at once; a guest tells how it is once a second, and takes its time."""
        measure = self._measures.get(key)
        return measure is None or measure.promise.level != Level.VM

    async def _begin(self, actions: list[Action]) -> None:
        """Act, and don't wait long for who is slow: a guest that hangs holds nobody up but itself."""
        for action in actions:
            self._busy[action.id] = task = asyncio.create_task(self._act(action))
            task.add_done_callback(lambda done, key=action.id: self._busy.pop(key, None))  # type: ignore[misc]
        if actions:
            await asyncio.wait([self._busy[action.id] for action in actions], timeout=CALM)

    async def _act(self, action: Action) -> bool:
        record = self._context.table.get(action.id)
        if record is None:
            return False
        asked = sample.promise_of(record)
        # Until it is done, the larger of the two counts.
        self._targets[action.id] = (asked, max(action.before, action.after))
        if not await self._allot(record, action.after):
            return False
        self._targets[action.id] = (asked, action.after)
        self.journal.write(
            action.word, action.id, action.name, before=action.before, after=action.after, why=action.why
        )
        return True

    async def _allot(self, record: InstanceRecord, memory: int) -> bool:
        driver = self._context.driver(record)
        if not isinstance(driver, Elastic):
            return False
        try:
            await asyncio.get_running_loop().run_in_executor(self._hands, driver.allot, record.plan, memory)
        except (TrivetError, OSError) as error:  # it is ending, or uses what was to be taken: the next round knows
            log.debug("cannot bound instance %s: %s", record.name, error)
            return False
        return True

    # --- words --------------------------------------------------------------------------------------

    def _warn(self, found: list[Measure], short: int) -> None:
        """Say it before it hurts, but not every second."""
        probability = self._shortage(found)
        tight = short or probability >= WARNING or self._host.stalled >= WARNING
        if not tight or time.monotonic() < self._warned + QUIET:
            return
        self._warned = time.monotonic()
        why = plan.warning(self.budget, self._host, found, short, probability)
        self.journal.write(Word.WARN, "", "", after=short, why=why)
        self._context.events.emit("system", "capacity", "", "", why=why, probability=f"{probability:.3f}")

    def _note(self, found: list[Measure], short: int) -> None:
        """Remember how things stand, a moment every INTERVAL, and what is said about what comes."""
        now = time.monotonic()
        if now < self._noted + INTERVAL:
            return
        self._noted = now
        room, used = plan.room_of(self.budget, self._host, found), sum(each.used for each in found)
        moment = CapacityMoment(
            time=round(time.time(), 1),
            room=room,
            promised=sum(each.promise.maximum for each in found),
            used=used,
            forecast=sum(each.peak for each in found),
            shortage=round(self._shortage(found), 4),
            short=bool(short) or used > room,
        )
        self._moments.append(moment)
        self._score.add(now, moment.shortage, short=moment.short)

    def _shortage(self, found: list[Measure], used: int = 0, more: int = 0) -> float:
        """State the probability; with so much `used` beyond what is, and so much `more` promised."""
        limited = all(each.promise.maximum for each in found)
        promised = sum(each.promise.maximum for each in found) + more if limited else None
        room = plan.room_of(self.budget, self._host, found)
        totals = [each + used for each in self._history.totals()]
        return forecast.shortage(totals, INTERVAL, room, promised)

    def _state(self, starting: tuple[Promise, ...]) -> State:
        tally, standing = self._tally, self._stand()
        tally.look()
        minimums = tally.minimums | {each.id: each.minimum for each in starting}
        return State(
            budget=self.budget,
            kept=sum(minimums.values()),
            promised=tally.maximum + sum(each.maximum for each in starting),
            processors=tally.processors + sum(each.processors for each in starting),
            room=standing.room,
            needed=standing.needed + sum(kept for key, kept in minimums.items() if key not in self._measures),
            shortage=standing.shortage,
        )

    def _stand(self) -> _Standing:
        """Work out what a start asks of what was measured, but once for many starts."""
        host, known = self._host_now(), self._standing
        if known is None or known.host is not host or known.measures is not self._measures:
            found = list(self._measures.values())
            known = self._standing = _Standing(
                host, self._measures, plan.room_of(self.budget, host, found), plan.needed(found), self._shortage(found)
            )
        return known

    def _host_now(self) -> Host:
        """Look at the machine, but not for each of many starts: what those before it will take is counted anyway."""
        if time.monotonic() > self._looked + FRESH:
            self._host, self._looked = sample.host(), time.monotonic()
        return self._host

    def _stolen(self, measure: Measure) -> float:
        return self._waited.get(measure.promise.id, (0.0, 0.0))[0]

    def _share(self, measure: Measure) -> Share:
        asked = measure.promise
        return Share(
            id=asked.id,
            name=asked.name,
            isolation=asked.level,
            minimum=asked.minimum,
            maximum=asked.maximum,
            weight=asked.weight,
            processors=asked.processors,
            elastic=asked.elastic,
            allotted=measure.allotted or asked.maximum,
            used=measure.used,
            forecast=measure.peak,
            stolen=round(self._stolen(measure), 3),
            starved=measure.starved,
        )


def _step(number: int, found: whatif.Step) -> PlanStep:
    return PlanStep(
        number=number,
        word=found.verdict.word,
        why=found.verdict.why,
        promised=found.promised,
        kept=found.kept,
        processors=found.processors,
        shortage=round(found.shortage, 4),
    )
