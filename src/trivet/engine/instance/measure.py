"""What a running instance uses, and which processes it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec

from trivet.base.clock import rfc3339
from trivet.client.schema import InsideSample, ProcessorSample, StatsSample, TopRow, TrafficSample
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import check
from trivet.isolation.driver import Stats

INTERVAL = 1.0


async def samples(context: Context, key: str, *, stream: bool) -> AsyncIterator[StatsSample]:
    """Yield a sample a second until the instance ends; one sample (over a tenth of a second) without `stream`."""
    record = context.table.find(key)
    check("measure", record.name, record.word)
    driver = context.driver(record)
    before, moment = await asyncio.to_thread(driver.stats, record.plan), time.monotonic()
    while record.id in context.watches:
        await asyncio.sleep(INTERVAL if stream else INTERVAL / 10)
        now, then, moment = await asyncio.to_thread(driver.stats, record.plan), moment, time.monotonic()
        yield _sample(record, before, now, moment - then)
        before = now
        if not stream:
            return


def _sample(record: InstanceRecord, before: Stats, now: Stats, seconds: float) -> StatsSample:
    used = now.used
    return StatsSample(
        id=record.id,
        name=record.name,
        isolation=record.request.isolation,
        cpu_percent=round(max(used.cpu - before.used.cpu, 0) / 1e7 / seconds, 2),
        cpu_total=used.cpu / 1e9,
        memory=used.memory,
        memory_limit=now.memory_limit,
        pids=now.pids,
        read=used.read,
        written=used.written,
        received=sum(each.received for each in now.traffic),
        sent=sum(each.sent for each in now.traffic),
        inside=msgspec.convert(now.inside, InsideSample | None, from_attributes=True),
        processor=ProcessorSample(
            user=used.user / 1e9,
            kernel=used.kernel / 1e9,
            periods=used.periods,
            throttled_periods=used.throttled_periods,
            throttled=used.throttled / 1e9,
        ),
        traffic=msgspec.convert(now.traffic, list[TrafficSample], from_attributes=True),
    )


async def top(context: Context, key: str) -> list[TopRow]:
    """List the processes of a running instance."""
    record = context.table.find(key)
    check("measure", record.name, record.word)
    rows = await asyncio.to_thread(context.driver(record).processes, record.plan)
    return [
        TopRow(
            pid=row.pid,
            ppid=row.ppid,
            user=row.user,
            command=row.command,
            cpu=row.cpu,
            started=rfc3339(int(row.started * 1e9)),
            used=row.used,
        )
        for row in rows
    ]
