"""What trivet's container level is to reach beside others, and what it reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.contestant import Crowd, Result
from bench.table import draw

OURS, HOST = "trivet container (api)", "trivet container host users (api)"
DOCKER, RUNTIME = "docker (api)", "trivet-runtime"

Results = dict[str, Result]
Measure = Callable[[Results], float | None]


class Goal(NamedTuple):
    """A number that is to be at most `limit`, or at least with `least`."""

    title: str
    measure: Measure
    limit: float
    least: bool = False


def text(results: Sequence[Result]) -> str:
    """Show the goals for which there are figures."""
    found = {result.name: result for result in results}
    rows = [
        [
            goal.title,
            f"{value:.3g}",
            f"{'≥' if goal.least else '≤'} {goal.limit:g}",
            "yes" if (value >= goal.limit if goal.least else value <= goal.limit) else "no",
        ]
        for goal in GOALS
        if (value := goal.measure(found)) is not None
    ]
    return f"Goals\n{draw(['', 'is', 'goal', 'met'], rows, right=True)}" if rows else ""


def _ratio(measure: str, ours: str, theirs: str) -> Measure:
    def measured(results: Results) -> float | None:
        mine, other = _median(results, ours, measure), _median(results, theirs, measure)
        return mine / other if mine and other else None

    return measured


def _times(measure: str) -> Measure:
    """How many times faster than docker."""

    def measured(results: Results) -> float | None:
        mine, other = _median(results, OURS, measure), _median(results, DOCKER, measure)
        return other / mine if mine and other else None

    return measured


def _more(results: Results) -> float | None:
    mine, bare = _median(results, OURS, "published start"), _median(results, OURS, "start")
    return (mine - bare) * 1000 if mine and bare else None


def _crowd(value: Callable[[Crowd], float], at_least: int = 0, below: int = 1 << 20) -> Measure:
    def measured(results: Results) -> float | None:
        crowd = results[OURS].crowd if OURS in results else None
        return value(crowd) if crowd and at_least <= crowd.containers < below else None

    return measured


def _crowds(value: Callable[[Crowd, Crowd], float]) -> Measure:
    def measured(results: Results) -> float | None:
        crowds = [results[name].crowd if name in results else None for name in (OURS, DOCKER)]
        return value(crowds[0], crowds[1]) if crowds[0] and crowds[1] else None

    return measured


def _median(results: Results, name: str, measure: str) -> float | None:
    figures = results[name].figures.get(measure) if name in results else None
    return figures.median if figures else None


GOALS = (
    Goal("start, of crun's", _ratio("start", OURS, "crun"), 0.35),
    Goal("start, of runc's", _ratio("start", OURS, "runc"), 0.2),
    Goal("start, host users, of crun's", _ratio("start", HOST, "crun host users"), 0.25),
    Goal("start, host users, of runc's", _ratio("start", HOST, "runc host users"), 0.12),
    Goal("bridge, names and a port: ms more", _more, 5),
    Goal("run --rm on a bridge, times faster than docker", _times("bridge run"), 25, least=True),
    Goal("exec, times faster than docker", _times("exec"), 15, least=True),
    Goal("exec, of crun's", _ratio("exec", OURS, "crun"), 0.3),
    Goal("trivet-runtime run, of runc's", _ratio("run", RUNTIME, "runc"), 1),
    Goal("starts per second, no network", _crowd(lambda crowd: crowd.rate), 200, least=True),
    Goal("three services up, of docker's", _ratio("application", OURS, DOCKER), 0.33),
    Goal("three services up by docker-compose, of docker's", _ratio("foreign application", OURS, DOCKER), 0.33),
    Goal("starts per second, bridge", _crowd(lambda crowd: crowd.rate_bridged), 100, least=True),
    Goal("starts per second, of docker's", _crowds(lambda ours, theirs: ours.rate / theirs.rate), 30, least=True),
    Goal(
        "20 at once, times less CPU", _crowds(lambda ours, theirs: theirs.twenty_cpu / ours.twenty_cpu), 15, least=True
    ),
    Goal("20 at once, times faster", _crowds(lambda ours, theirs: theirs.twenty / ours.twenty), 15, least=True),
    Goal(
        "20 at once by Docker's API, times faster",
        _crowds(lambda ours, theirs: theirs.door_twenty / ours.door_twenty),
        15,
        least=True,
    ),
    Goal("MB beyond a container's processes", _crowd(lambda crowd: crowd.each / 1e6), 0.2),
    Goal("MB of engine and helpers, 100 containers", _crowd(lambda crowd: crowd.all / 1e6, 100, 200), 60),
    Goal("MB of an idle engine", _crowd(lambda crowd: crowd.idle / 1e6), 45),
    Goal("small requests per second", _crowd(lambda crowd: crowd.requests), 1000, least=True),
    Goal("list of 500, ms", _crowd(lambda crowd: crowd.listed.median * 1000 * 500 / crowd.containers, 500), 15),
    Goal("small requests by Docker's API per second", _crowd(lambda crowd: crowd.door_requests), 1000, least=True),
    Goal(
        "list of 500 by Docker's API, ms",
        _crowd(lambda crowd: crowd.door_listed.median * 1000 * 500 / crowd.containers, 500),
        15,
    ),
    Goal("list of 2000, ms", _crowd(lambda crowd: crowd.listed.median * 1000, 2000), 100),
    Goal("removing 2000, s", _crowd(lambda crowd: crowd.removed, 2000), 20),
    Goal("things left behind", _crowd(lambda crowd: sum(crowd.left.values())), 0),
)
