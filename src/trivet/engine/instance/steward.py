"""The steward accompanies every running instance to its end, and does what was agreed for then."""

from __future__ import annotations

import asyncio
import logging
import signal
import sqlite3

from trivet.base.clock import now_ns
from trivet.base.error import TrivetError
from trivet.engine.instance import health, stall
from trivet.engine.instance.context import Context
from trivet.engine.instance.ending import finish
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.remove import remove
from trivet.engine.instance.restart import delay
from trivet.engine.instance.start import start
from trivet.engine.instance.status import Word
from trivet.engine.instance.watch import Watch, lost_exit
from trivet.isolation.driver import Exit

log = logging.getLogger(__name__)


async def steward(context: Context) -> None:
    """Take over each started instance, for as long as the engine runs."""
    while True:
        key, watch = await context.started.get()
        context.background(asyncio.create_task(_accompany(context, key, watch)))


async def _accompany(context: Context, key: str, watch: Watch) -> None:
    record = context.table.get(key)
    wanted = [each for each in (health, stall) if record and each.applies(context, record)]
    checks = [asyncio.create_task(each.accompany(context, key, watch)) for each in wanted]
    try:
        end = await _explained(context, key, await watch.follow())
    finally:
        for check in checks:
            check.cancel()
    try:
        record = await _finish(context, key, end)
        if context.watches.get(key) is watch:
            del context.watches[key]
        watch.ended.set_result(end)
        if record is not None:
            await _afterwards(context, record)
    except Exception:  # one instance's trouble must not end the care for the others
        log.exception("cannot finish instance %s", key)
    finally:
        watch.settle(end)


async def _finish(context: Context, key: str, end: Exit) -> InstanceRecord | None:
    """Record the end, however long it takes: a full disk or a busy cgroup must not leave it unsaid."""
    pause = 0.1
    while True:
        try:
            return await finish(context, key, end)
        except (TrivetError, OSError, sqlite3.Error) as error:
            log.error("cannot finish instance %s yet: %s", key, error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, 30.0)


async def _explained(context: Context, key: str, end: Exit | None) -> Exit:
    """Add what only the level knows about a program that was killed: perhaps its machine was, or had a panic."""
    record = context.table.get(key)
    if end is None or record is None:
        return end or await _lost(context, key)
    if end.signal != signal.SIGKILL and not (end.code and record.plan.hardware):
        return end
    status = await asyncio.to_thread(context.driver(record).status, record.plan)
    return status.exit or end


async def _lost(context: Context, key: str) -> Exit:
    """Find out how an instance ended whose monitor went away without a word."""
    record = context.table.get(key)
    if record is None:
        return lost_exit("the instance was removed")
    status = await asyncio.to_thread(context.driver(record).status, record.plan)
    return status.exit or lost_exit("its monitor was killed")


async def _afterwards(context: Context, record: InstanceRecord) -> None:
    pause = delay(record)
    if pause is not None:
        record = record.change(word=Word.RESTARTING, restarts=record.restarts + 1)
        context.table.update(record.id, record)
        context.background(asyncio.create_task(start_again(context, record.id, pause)))
    elif record.request.auto_remove:
        async with context.locks.hold(record.id, "removing"):
            await remove(context, record.id, volumes=True)


async def start_again(context: Context, key: str, pause: float) -> None:
    """Start an instance that is `restarting` after `pause` seconds, unless somebody stopped it meanwhile."""
    await asyncio.sleep(pause)
    async with context.locks.hold(key, "restarting"):
        record = context.table.get(key)
        if record is None or record.word != Word.RESTARTING or not record.wanted:
            return
        try:
            await start(context, key)
        except (TrivetError, OSError) as error:
            failed = record.change(word=Word.EXITED, wanted=False, exit_code=127, finished=now_ns(), error=str(error))
            context.table.update(key, failed)
