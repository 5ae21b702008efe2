"""Letting instances stand still for a moment, while something of theirs is read.

They are frozen without anybody seeing them `paused`. Who stands still is recorded, so that an engine
killed at that moment lets them go on when it comes back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager

import msgspec

from trivet.base.error import TrivetError
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.volume.snapshot import Pause
from trivet.isolation.driver import Pausable
from trivet.kernel.priority import going_first

log = logging.getLogger(__name__)

KIND = "still"
Running = tuple[Pausable, InstanceRecord]


class Still(msgspec.Struct, frozen=True):
    """An instance that stands still, by its id."""

    id: str


@contextmanager
def standing_still(context: Context, records: Iterable[InstanceRecord]) -> Iterator[Pause]:
    """Freeze the running ones of these instances, where their level can, while the block runs.

    What is to be recorded is, before the first stands still and after the last has gone on. The caller holds their
    locks.
    """
    table, pause = context.records.table(KIND, Still), Pause()
    pausable = [(driver, each) for each in records if isinstance(driver := context.driver(each), Pausable)]
    running = [(driver, record) for driver, record in pausable if record.word is Word.RUNNING]
    with ExitStack() as undo:
        with context.records.transaction():
            for _, record in running:
                table.insert(record.id, Still(record.id))
        undo.callback(_forget, context, [record.id for _, record in running])
        if running:
            pause.begin()
            undo.callback(pause.end)
        undo.callback(_together, lambda each: _resume(*each), running)
        _together(lambda each: each[0].pause(each[1].plan), running)
        yield pause


def _together(do: Callable[[Running], None], running: Sequence[Running]) -> None:
    """Do it to all at once: the first shouldn't stand still while the others are asked."""
    if len(running) == 1:
        do(running[0])
    elif running:
        with ThreadPoolExecutor(len(running), thread_name_prefix="still") as pool:
            for future in [pool.submit(do, each) for each in running]:
                future.result()


def _forget(context: Context, keys: list[str]) -> None:
    table = context.records.table(KIND, Still)
    with context.records.transaction():
        for key in keys:
            table.delete(key)


@contextmanager
def recorded_still(context: Context, record: InstanceRecord) -> Iterator[None]:
    """Record that an instance stands still, if it does, while the block runs: its level stops it by itself."""
    table = context.records.table(KIND, Still)
    table.put(record.id, Still(record.id))
    try:
        yield
    finally:
        table.delete(record.id)


@contextmanager
def users_still(context: Context, volume: str, loop: asyncio.AbstractEventLoop) -> Iterator[Pause]:
    """Freeze all who use a volume while the block runs, in a thread; waits for what is being done to them."""
    stack = AsyncExitStack()

    async def hold() -> None:
        for key in sorted(record.id for record in context.table.all() if volume in record.volumes):
            await stack.enter_async_context(context.locks.hold(key, "taking a snapshot of a volume of"))

    asyncio.run_coroutine_threadsafe(hold(), loop).result()
    try:
        users = [record for record in context.table.all() if volume in record.volumes]
        # They wait for this thread, and shouldn't for all others that want a processor; it takes it for milliseconds.
        with going_first(), standing_still(context, users) as pause:
            yield pause
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()


def all_go_on(context: Context) -> None:
    """Let go on whom an engine that was killed had standing still."""
    table = context.records.table(KIND, Still)
    for still in table.all():
        if record := context.table.get(still.id):
            let_go_on(context, record)
        table.delete(still.id)


def let_go_on(context: Context, record: InstanceRecord) -> None:
    """Let an instance go on that stands still, if it does."""
    driver = context.driver(record)
    if isinstance(driver, Pausable) and driver.status(record.plan).word == "paused":
        _resume(driver, record)


def _resume(driver: Pausable, record: InstanceRecord) -> None:
    """Let an instance go on; one that was killed meanwhile is none of our business."""
    try:
        driver.resume(record.plan)
    except TrivetError as error:
        log.info("cannot let instance %s go on: %s", record.name, error.message)
