"""Changing what an instance may use, while it runs or before it does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from trivet.base.error import TrivetError, Unsupported
from trivet.client.schema_network import PortRequest, RateRequest
from trivet.engine.instance import publishing, rate
from trivet.engine.instance.context import Context
from trivet.engine.instance.plan import limits
from trivet.engine.instance.status import Word
from trivet.isolation.driver import Resizable


async def update(
    context: Context,
    key: str,
    fields: dict[str, object],
    publish: Sequence[PortRequest] = (),
    unpublish: Sequence[PortRequest] = (),
    rates: Sequence[RateRequest] = (),
) -> None:
    """Replace fields of the instance's request, apply the limits and rates they mean and publish ports. All or nothing.

    The caller holds the instance's lock. Raises `Unsupported` for a running instance of a level that can't.
    """
    record = context.table.find(key)
    request = msgspec.structs.replace(record.request, **fields)
    plan = msgspec.structs.replace(record.plan, limits=limits(request))
    if plan.limits != record.plan.limits and record.word in (Word.RUNNING, Word.PAUSED):
        driver = context.driver(record)
        if not isinstance(driver, Resizable):
            raise Unsupported(
                f"cannot change the limits of running instance {record.name}: level {driver.level} cannot",
                hint=f"trivet stop {record.name} first",
            )
        await asyncio.to_thread(driver.resize, plan)
    before = record
    record = record.change(request=request, plan=plan)
    if publish or unpublish or rates:
        try:
            record = await rate.change(context, record, rates) if rates else record
            record = await publishing.change(context, record, unpublish, publish)
        except TrivetError:
            if plan.limits != before.plan.limits and isinstance(driver := context.driver(before), Resizable):
                await asyncio.to_thread(driver.resize, before.plan)
            raise
    context.table.update(record.id, record)
    context.emit("update", record)
