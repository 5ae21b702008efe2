"""Peers take turns in one loop, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from enum import StrEnum
from time import monotonic, sleep
from typing import NamedTuple

from bench import memory
from bench.contestant import Contestant, Figures, Memory
from bench.peers.peer import Engine

SLOWNESS = 5  # a slow peer takes part in every fifth round ...
FEWEST = 3  # ... but in so many at least
CROWD_OF_SLOW = 3  # idle instances of a slow peer at once
SETTLE = 1.0  # seconds until what was started last has come to rest

Tell = Callable[[str], None]
Act = Callable[[Contestant], Sequence[float]]


class Count(StrEnum):
    """Which CPU time belongs to a measure."""

    NONE = "none"  # a turn holds more than what is measured
    TURN = "turn"  # what is used during the peer's turns
    WHOLE = "whole"  # what is done in the background later, too


class Turn(NamedTuple):
    """What one turn of a peer gave: its sample, and its CPU clock before and after."""

    sample: Sequence[float]
    before: float
    after: float


def measure_runs(contestants: Sequence[Contestant], rounds: int, tell: Tell) -> None:
    """Measure `start` (until the first instruction) and `run` (until all is over) of new instances."""
    alternate(contestants, ("start", "run"), rounds, lambda one: one.peer.run(), tell, Count.WHOLE)


def measure_bridged(contestants: Sequence[Contestant], rounds: int, tell: Tell) -> None:
    """Measure start and run on a bridge, in instances that are removed by themselves, and with a port published."""
    engines = [one for one in contestants if isinstance(one.peer, Engine)]

    def act(published: bool) -> Act:
        return lambda one: one.peer.bridged(published=published) if isinstance(one.peer, Engine) else ()

    alternate(engines, ("bridge start", "bridge run"), rounds, act(False), tell, Count.WHOLE)
    alternate(engines, ("published start", "published run"), rounds, act(True), tell, Count.WHOLE)


def measure_execs(contestants: Sequence[Contestant], rounds: int, tell: Tell) -> None:
    """Measure `exec`, from the request to the exit status, in an idle instance of each."""

    def act(one: Contestant) -> Sequence[float]:
        began = monotonic()
        one.peer.exec("bench-idle")
        return (monotonic() - began,)

    for one in _present(contestants):
        with one.turn():
            one.peer.idle("bench-idle")
    alternate(contestants, ("exec",), rounds, act, tell, Count.TURN)
    for one in _present(contestants):
        with one.turn():
            one.peer.stop("bench-idle")


def measure_stops(contestants: Sequence[Contestant], rounds: int, tell: Tell) -> None:
    """Measure `stop`: ask an idle instance to end, wait, remove it.

    The kernel drops a signal that reaches process 1 before its handler is there (pid_namespaces(7)), and the stop
    would wait for nothing; the exec gives the program the time to get ready.
    """

    def act(one: Contestant) -> Sequence[float]:
        one.peer.idle("bench-stop")
        one.peer.exec("bench-stop")
        began = monotonic()
        one.peer.stop("bench-stop")
        return (monotonic() - began,)

    alternate(contestants, ("stop",), rounds, act, tell, Count.NONE)


def measure_memory(contestants: Sequence[Contestant], instances: int, tell: Tell) -> None:
    """Measure what a crowd of idle instances takes beyond the programs in them, one peer after the other.

    That is what came into being beside them, and what the daemon has grown by: only its own data, as its share of
    the pages of libraries changes with everybody who comes and goes.
    """
    for one in _present(contestants):
        if one.peer.twin:
            continue
        count = min(instances, CROWD_OF_SLOW) if one.peer.slow else instances
        tell(f"{count} idle instances: {one.peer.name}")
        with one.turn():
            daemon = one.account.processes()
            base, data = memory.total(daemon), memory.total(daemon, memory.ANONYMOUS)
            names = [f"bench-{number}" for number in range(count)]
            programs = {one.peer.idle(name) for name in names}
            sleep(SETTLE)
            beside = one.account.processes() - daemon - (set() if one.peer.slow else programs)
            more = memory.total(beside) + memory.total(daemon, memory.ANONYMOUS) - data
            one.result.memory = Memory(instances=count, each=more / count, base=base)
            for name in names:
                one.peer.stop(name)


def alternate(
    contestants: Sequence[Contestant], measures: Sequence[str], rounds: int, act: Act, tell: Tell, count: Count
) -> None:
    """Let everybody act once a round, in an order that rotates, and note down what they needed.

    `act` returns seconds in the order of `measures`; the CPU time is the last one's. Round 0 warms up and doesn't
    count.
    """
    turns: dict[str, list[Turn]] = {one.peer.name: [] for one in contestants}
    for number in range(rounds + 1 if contestants else 0):
        shift = number % len(contestants)
        for one in _present([*contestants[shift:], *contestants[:shift]]):
            if one.peer.slow and number % _pace(rounds):
                continue
            tell(f"{' and '.join(measures)}, round {number} of {rounds}: {one.peer.name}")
            with one.turn():
                before = one.account.cpu()
                turns[one.peer.name].append(Turn(act(one), before, one.account.cpu()))
    sleep(SETTLE)
    for one in _present(contestants):
        taken = turns[one.peer.name]
        columns = zip(*(turn.sample for turn in taken[1:]), strict=True)
        for measure, samples in zip(measures, columns, strict=True):
            cpu = _cpu(taken, one.account.cpu(), count) if measure == measures[-1] else None
            one.result.figures[measure] = summarise(samples, cpu)


def _cpu(turns: Sequence[Turn], now: float, count: Count) -> float | None:
    """Return the mean CPU time of all turns but the first, which warmed up; `now` is what the clock says in the end."""
    first, *taken = turns
    whole = {
        Count.NONE: None,
        Count.TURN: sum(turn.after - turn.before for turn in taken),
        Count.WHOLE: now - first.after,
    }[count]
    return None if whole is None else whole / len(taken)


def summarise(samples: Sequence[float], cpu: float | None = None) -> Figures:
    """Compute median, 10th and 95th percentile."""
    return Figures(
        samples=[round(sample, 6) for sample in samples],
        median=statistics.median(samples),
        p10=_percentile(samples, 0.10),
        p95=_percentile(samples, 0.95),
        cpu=cpu,
    )


def _percentile(samples: Sequence[float], share: float) -> float:
    return sorted(samples)[max(math.ceil(share * len(samples)) - 1, 0)]


def _pace(rounds: int) -> int:
    """Tell in which rounds slow peers take part: in those whose number this divides."""
    return max(1, min(SLOWNESS, rounds // FEWEST))


def _present(contestants: Sequence[Contestant]) -> list[Contestant]:
    return [one for one in contestants if one.present]
