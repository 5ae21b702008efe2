"""Events for those who follow, however slowly."""

from __future__ import annotations

import asyncio
import time

from trivet.engine.event import Events


def names(events: Events, until: int, *, slow: bool) -> list[str]:
    """Follow until a moment while one event after another happens, the last one after it."""

    async def run() -> list[str]:
        found: list[str] = []
        stream = events.follow(until=until)

        async def read() -> None:
            async for event in stream:
                found.append(event.name)
                if slow and len(found) == 1:
                    await asyncio.sleep(0.3)  # the moment passes

        reader = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        for name in ("a", "b", "c"):
            events.emit("instance", "start", name, name)
        await asyncio.sleep(max(until - time.time_ns(), 0) / 1e9 + 0.05)
        events.emit("instance", "start", "late", "late")
        await asyncio.wait_for(reader, 5)
        return found

    return asyncio.run(run())


def test_a_slow_reader_gets_what_came_in_time() -> None:
    """What happened before the end is told, also to those who come to it only afterwards; what came later is not."""
    for slow in (False, True):
        assert names(Events(), time.time_ns() + 200_000_000, slow=slow) == ["a", "b", "c"]


def test_the_past_is_told_once() -> None:
    """What is kept comes first, then what happens while it is told."""

    async def run() -> list[str]:
        events, found = Events(), []
        events.emit("instance", "start", "a", "a")
        async for event in events.follow(since=1, until=time.time_ns() + 100_000_000):
            found.append(event.name)
            if len(found) == 1:
                events.emit("instance", "start", "b", "b")
        return found

    assert asyncio.run(run()) == ["a", "b"]
