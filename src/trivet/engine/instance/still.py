"""Letting instances stand still for a moment, while something of theirs is read.

They are frozen without anybody seeing them `paused`. Who stands still is recorded, so that an engine
killed at that moment lets them go on when it comes back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager

import msgspec

from trivet.base.error import TrivetError
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.isolation.driver import Pausable

log = logging.getLogger(__name__)

KIND = "still"


class Still(msgspec.Struct, frozen=True):
    """An instance that stands still, by its id."""

    id: str


@contextmanager
def standing_still(context: Context, records: Iterable[InstanceRecord]) -> Iterator[float]:
    """Freeze the running ones of these instances, where their level can, while the block runs.

    Yields since when they stand still (time.monotonic). The caller holds their locks.
    """
    table = context.records.table(KIND, Still)
    begun = time.monotonic()
    with ExitStack() as undo:
        for record in records:
            driver = context.driver(record)
            if record.word is Word.RUNNING and isinstance(driver, Pausable):
                table.insert(record.id, Still(record.id))
                undo.callback(table.delete, record.id)
                driver.pause(record.plan)
                undo.callback(_resume, driver, record)
        yield begun


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
def users_still(context: Context, volume: str, loop: asyncio.AbstractEventLoop) -> Iterator[float]:
    """Freeze all who use a volume while the block runs, in a thread; waits for what is being done to them."""
    stack = AsyncExitStack()

    async def hold() -> None:
        for key in sorted(record.id for record in context.table.all() if volume in record.volumes):
            await stack.enter_async_context(context.locks.hold(key, "taking a snapshot of a volume of"))

    asyncio.run_coroutine_threadsafe(hold(), loop).result()
    try:
        with standing_still(context, [record for record in context.table.all() if volume in record.volumes]) as begun:
            yield begun
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()


def go_on(context: Context) -> None:
    """Let go on whom an engine that was killed had standing still."""
    table = context.records.table(KIND, Still)
    for still in table.all():
        record = context.table.get(still.id)
        driver = context.driver(record) if record else None
        if record and isinstance(driver, Pausable) and driver.status(record.plan).word == "paused":
            _resume(driver, record)
        table.delete(still.id)


def _resume(driver: Pausable, record: InstanceRecord) -> None:
    """Let an instance go on; one that was killed meanwhile is none of our business."""
    try:
        driver.resume(record.plan)
    except TrivetError as error:
        log.info("cannot let instance %s go on: %s", record.name, error.message)
