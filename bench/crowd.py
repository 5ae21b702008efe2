"""Many at once: how fast they come and go, what they take, what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

from bench import memory
from bench.contestant import Contestant, Crowd
from bench.footprint import footprint
from bench.harness import Tell, summarise
from bench.peers.peer import Engine

AT_ONCE = 4  # requests under way while rates are measured
FEW = 20  # containers that a group of people start in the same moment
LISTS, REQUESTS = 20, 300
REST = 5.0  # seconds until memory is looked at: what work needed has been given back
PATIENCE = 30.0  # seconds for what is tidied up in the background; what was made ahead waits for up to 19


def measure(one: Contestant, count: int, tell: Tell) -> None:
    """Measure a crowd of `count` at one peer, if that is an engine; others wait meanwhile."""
    if one.present and isinstance(one.peer, Engine):
        tell(f"{count} containers at once: {one.peer.name}")
        with one.turn():
            one.result.crowd = _crowd(one, one.peer, count)


def _crowd(one: Contestant, engine: Engine, count: int) -> Crowd:
    engine.begin("bench-first", bridge=True)
    engine.end("bench-first")
    sleep(REST)
    before = footprint(engine.daemon(), one.account)
    daemon = one.account.processes()
    idle = memory.total(daemon)
    requests = _seconds(lambda: engine.ping(REQUESTS))
    few = [f"bench-few-{number}" for number in range(min(FEW, count))]
    clock = one.account.cpu()
    twenty = _together(lambda name: engine.begin(name, bridge=True), few, FEW)
    twenty_cpu = one.account.cpu() - clock
    _together(engine.end, few, AT_ONCE)
    door = engine.door()
    door_twenty = _together(lambda name: door.begin(name, bridge=True), few, FEW)
    _together(engine.end, few, AT_ONCE)
    door_requests = _seconds(lambda: door.ping(REQUESTS))
    names = [f"bench-{number}" for number in range(count)]
    plain, bridged = names[::2], names[1::2]
    rate = len(plain) / _together(lambda name: engine.begin(name, bridge=False), plain, AT_ONCE)
    rate_bridged = len(bridged) / _together(lambda name: engine.begin(name, bridge=True), bridged, AT_ONCE)
    sleep(REST)
    listed = summarise([_seconds(engine.overview) for _ in range(LISTS)])
    door_listed = summarise([_seconds(door.overview) for _ in range(LISTS)])
    everything = memory.total(one.account.processes() - engine.pids())
    removed = _together(engine.end, names, AT_ONCE)
    return Crowd(
        containers=count,
        rate=rate,
        rate_bridged=rate_bridged,
        twenty=twenty,
        twenty_cpu=twenty_cpu,
        idle=idle,
        requests=REQUESTS / requests,
        each=(everything - idle) / count,
        all=everything,
        listed=listed,
        door_twenty=door_twenty,
        door_requests=REQUESTS / door_requests,
        door_listed=door_listed,
        removed=removed,
        left=_left(one, engine, before),
    )


def _left(one: Contestant, engine: Engine, before: dict[str, int]) -> dict[str, int]:
    """Tell what is there more than before, once it has had the time to go."""
    deadline = monotonic() + PATIENCE
    while True:
        now = footprint(engine.daemon(), one.account)
        more = {what: number - before[what] for what, number in now.items() if number > before[what]}
        if not more or monotonic() > deadline:
            return more
        sleep(0.2)


def _together(act: Callable[[str], None], names: Sequence[str], at_once: int) -> float:
    with ThreadPoolExecutor(at_once) as pool:
        return _seconds(lambda: list(pool.map(act, names)))


def _seconds(act: Callable[[], object]) -> float:
    began = monotonic()
    act()
    return monotonic() - began
