"""Instances that their level had to stop, as something ran out on the host: told as paused, with the reason."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

from trivet.base.error import TrivetError
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.instance.watch import Watch
from trivet.isolation.driver import stalling

INTERVAL = 5.0

log = logging.getLogger(__name__)


def applies(context: Context, record: InstanceRecord) -> bool:
    """Tell whether the instance's level can stall."""
    return stalling(context.driver(record)) is not None


async def accompany(context: Context, key: str, watch: Watch) -> None:
    """Look now and then, until an instance ends, whether it stands still by itself."""
    record = context.table.get(key)
    driver = stalling(context.driver(record)) if record else None
    while driver and not watch.ended.done():
        await asyncio.wait([watch.ended], timeout=INTERVAL)
        record = context.table.get(key)
        if record is None or watch.ended.done():
            return
        if record.word is Word.RUNNING and (reason := await asyncio.to_thread(driver.stalled, record.plan)):
            try:
                await _note(context, key, reason)
            except (TrivetError, sqlite3.Error) as error:  # perhaps it is this disk that is full
                log.warning("cannot write down that instance %s stands still: %s", record.name, error)


async def _note(context: Context, key: str, reason: str) -> None:
    async with context.locks.hold(key, "pausing"):
        record = context.table.get(key)
        if record is None or record.word is not Word.RUNNING:
            return
        record = record.change(word=Word.PAUSED, error=reason)
        context.table.update(key, record)
        context.emit("pause", record, error=reason)
        log.warning("instance %s stands still: %s", record.name, reason)
