"""The reference example: a host of 32 GB promises 36, one's load rises, then everybody's. `make overbooked`.

WebServer1 8 GB, WebServer2 8, DBServer 12, AppServer 8; sizes are divided by 32, so that a GB is 32 MiB.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from demo.overbooked.world import MEBIBYTE, Failed, World, until, world
from trivet.client.schema import LevelName
from trivet.client.schema_capacity import Decision, Share

HOST = 1024
DEADLINE = 30.0
"""Seconds in which the database has what it was promised."""
TOGETHER = 20.0
"""Seconds for which everybody wants everything."""
EVEN = 40
"""MiB in which those of the same weight may differ when everybody waits."""
SLACK = {"vm": 96}
"""Of machines it is more: guests grow when they get a processor, and what one uses isn't taken for another."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """An instance of the example; the machine's kernel is part of what it was promised."""

    name: str
    level: LevelName
    minimum: int
    maximum: int
    weight: int = 1024

    @property
    def full(self) -> int:
        """How much its program can use of what it was promised."""
        return self.maximum - (88 if self.level == "vm" else 12)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen in a run: `shares` when all waited, the seconds the database took, and every decision."""

    seconds: float
    shares: dict[str, Share]
    decisions: list[Decision]


def parts(web1: LevelName, web2: LevelName, database: LevelName, app: LevelName) -> tuple[Part, ...]:
    """Describe the example at these levels; a machine's minimum lets its kernel live."""

    def part(name: str, level: LevelName, maximum: int, weight: int = 1024) -> Part:
        minimum = 128 if level == "vm" else maximum // 4
        return Part(name=name, level=level, minimum=minimum, maximum=maximum, weight=weight)

    return (
        part("webserver1", web1, 256),
        part("webserver2", web2, 256),
        part("dbserver", database, 384, 2048),
        part("appserver", app, 256),
    )


LEVELS: dict[str, tuple[Part, ...]] = {
    "container": parts("container", "container", "container", "container"),
    "process": parts("process", "process", "process", "process"),
    "local": parts("container", "process", "container", "process"),
    "mixed": parts("container", "process", "vm", "vm"),
    "vm": parts("vm", "vm", "vm", "vm"),
}


def play(
    chosen: tuple[Part, ...], say: Callable[[str], None] = lambda text: None, together: float = TOGETHER
) -> Outcome:
    """Run the example once; all want everything for `together` seconds. Raises `Failed` when it isn't as promised."""
    with world(HOST, "--idle-tax=0.75") as host:
        _begin(host, chosen, say)
        seconds = _database(host, chosen, say)
        shares = _everybody(host, chosen, say, together)
        decisions = host.client.capacity.decisions()
        _explained(host, decisions, say)
        return Outcome(seconds=seconds, shares=shares, decisions=decisions)


def _begin(host: World, chosen: tuple[Part, ...], say: Callable[[str], None]) -> None:
    warned: list[str] = []
    for part in chosen:
        warned = host.begin(part.name, part.level, part.minimum, part.maximum, part.weight)
        host.want(part.name, 10)
    if not any("1.12 GiB are promised of 1 GiB" in text for text in warned):
        raise Failed(f"nobody warned that 36 of 32 are promised: {warned}")
    say(f"four instances run; the engine warned: {warned[-1]}")
    until(lambda: sum(each.allotted for each in host.shares().values()) <= HOST * MEBIBYTE, "too much is allotted", 60)


def _database(host: World, chosen: tuple[Part, ...], say: Callable[[str], None]) -> float:
    part = next(part for part in chosen if part.name == "dbserver")
    host.want(part.name, part.full)
    seconds = until(
        lambda: host.used(part.name) >= part.full, "the database does not get what it was promised", DEADLINE
    )
    _unhurt(host, chosen)
    say(f"the database has all of its {part.maximum} MiB after {seconds:.1f} s; nobody was killed, nothing swapped")
    return seconds


def _everybody(host: World, chosen: tuple[Part, ...], say: Callable[[str], None], together: float) -> dict[str, Share]:
    moment = int(time.time()) + (12 if any(part.level == "vm" for part in chosen) else 3)
    with ThreadPoolExecutor(len(chosen)) as pool:
        list(pool.map(lambda part: host.want_at(moment, part.name, part.full), chosen))
    time.sleep(max(moment - time.time(), 0) + together)
    until(lambda: any(each.starved for each in host.shares().values()), "nobody waits", 90)
    shares = host.shares()
    _alive(host)
    for part in chosen:
        say(f"{part.name} ({part.level}) has {shares[part.name].used >> 20} MiB of {part.maximum}")
    if sum(share.allotted for share in shares.values()) > HOST * MEBIBYTE:
        each = ", ".join(f"{name} {share.allotted >> 20}" for name, share in shares.items())
        said = "; ".join(f"{one.word} {one.name}: {one.why}" for one in host.client.capacity.decisions()[-3:])
        raise Failed(f"more than {HOST} MiB are allotted: {each}; last it was said: {said}")
    others = [shares[part.name].allotted / MEBIBYTE for part in chosen if part.name != "dbserver"]
    if max(others) - min(others) > max(SLACK.get(part.level, EVEN) for part in chosen):
        raise Failed(f"the same weight, and not the same memory: {others}")
    host.want("dbserver", 10)  # who waits at its bound on version 1 does nothing else until it is given memory
    until(lambda: not any(each.starved for each in host.shares().values()), "somebody still waits", 60)
    _unhurt(host, chosen)
    return shares


def _alive(host: World) -> None:
    for instance in host.client.instances.list(all=True):
        if instance.status != "running" or instance.restarts or instance.out_of_memory:
            raise Failed(f"{instance.name} is {instance.status}: {instance.error}")


def _unhurt(host: World, chosen: tuple[Part, ...]) -> None:
    """Nobody was killed for want of memory, inside or outside, and nothing was swapped out."""
    _alive(host)
    for part in chosen:
        seen = host.run(part.name, "sh", "-c", "cat /proc/1/status | grep VmSwap; cat /proc/vmstat | grep pswpout")
        if [word for line in seen.splitlines() for word in line.split() if word.isdigit() and int(word)]:
            raise Failed(f"{part.name} has swapped: {seen}")
        if part.level == "vm":
            events = host.run(part.name, "sh", "-c", "cat /sys/fs/cgroup/memory.events")
            if "oom_kill 0" not in events:
                raise Failed(f"somebody was killed in {part.name}: {events}")


def _explained(host: World, decisions: list[Decision], say: Callable[[str], None]) -> None:
    for word in ("warn", "take", "give"):
        if not any(each.word == word and each.why for each in decisions):
            raise Failed(f"no decision to {word} was recorded")
    short = [each for each in decisions if each.word == "warn" and "not there" in each.why]
    first = next(each for each in decisions if each.word == "warn")
    if short and first.time >= short[0].time:
        raise Failed("the warning came no sooner than the shortage")
    for each in decisions[-3:]:
        say(f"{each.word} {each.name}: {each.why}")
