"""The end of an instance: written down first, then what only a running instance needs is freed."""

from __future__ import annotations

from trivet.base.clock import now_ns
from trivet.base.thread import in_thread
from trivet.engine.instance import staging
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.secret import take
from trivet.isolation.driver import Exit


def end_lock(key: str) -> str:
    """Name the lock that `finish` holds and `start` waits for; `stop` holds the instance's own meanwhile."""
    return f"{key}/end"


async def finish(context: Context, key: str, end: Exit) -> InstanceRecord | None:
    """Record how a run ended and free its ports, network and control groups. May be repeated after a failure.

    The record comes first: after a crash in between, the engine frees again on its next start.
    Returns None when the instance is not there any more, or runs again.
    """
    async with context.locks.hold(end_lock(key), "ending"):
        record = context.table.get(key)
        if record is None or record.word not in (Word.RUNNING, Word.PAUSED, Word.EXITED):
            return None
        if record.word != Word.EXITED:
            record = _ended(record, end)
            context.table.update(key, record)
            if end.out_of_memory:
                context.emit("oom", record)
            context.emit("die", record, exit_code=str(end.code))
        await in_thread(free, context, record)
        return record


def _ended(record: InstanceRecord, end: Exit) -> InstanceRecord:
    return record.change(
        word=Word.EXITED,
        pid=0,
        finished=end.time or now_ns(),
        exit_code=end.code,
        exit_signal=end.signal,
        out_of_memory=end.out_of_memory,
        error=end.error,
        ports=(),
    )


def free(context: Context, record: InstanceRecord) -> None:
    """Free what only a running instance needs. Idempotent, blocking.

    Once is enough in an engine's life, unless the instance is started again.
    """
    if record.id in context.freed:
        return
    context.networks.unpublish(record.id)
    context.driver(record).release(record.plan)
    context.networks.detach(record.id)
    staging.clear(context.run, record.id)
    take(context.place(record.id).state)
    context.freed.add(record.id)
