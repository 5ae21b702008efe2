"""Removing an instance: everything it had, in the order that lets a second attempt finish the first."""

from __future__ import annotations

import asyncio
import shutil

from trivet.engine.checkpoint import model
from trivet.engine.instance.context import Context
from trivet.engine.instance.ending import free
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.shipping import ships
from trivet.engine.instance.status import check


async def remove(context: Context, key: str, *, volumes: bool = False) -> None:
    """Remove an instance that does not run; `volumes` takes its anonymous volumes along.

    The caller holds the instance's lock. The record goes last: what a crash leaves is found by it.
    """
    record = context.table.find(key)
    check("remove", record.name, record.word)
    await asyncio.to_thread(context.shipping.farewell, record)
    context.table.update(record.id, record.change(removing=True))
    await asyncio.to_thread(_sweep, context, record)
    context.table.delete(record.id)
    context.freed.discard(record.id)
    if ships(record):
        await asyncio.to_thread(context.shipping.announce)
    if volumes:
        others = {volume for each in context.table.all() for volume in each.volumes}
        for volume in set(record.anonymous_volumes) - others:  # what was taken over from it stays
            await asyncio.to_thread(context.volumes.remove, volume)
    context.emit("remove", record)


def _sweep(context: Context, record: InstanceRecord) -> None:
    free(context, record)
    context.networks.release(record.id)
    context.snapshotter(record).remove(record.id)
    place = context.place(record.id)
    shutil.rmtree(place.run, ignore_errors=True)
    shutil.rmtree(place.state, ignore_errors=True)
    for name in [each.id for each in model.of_instance(context, record.id)]:
        model.table(context).delete(name)
