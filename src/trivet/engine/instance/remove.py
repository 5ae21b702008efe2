"""Removing an instance: everything it had, in the order that lets a second attempt finish the first."""

from __future__ import annotations

import asyncio

from trivet.base.thread import in_thread
from trivet.base.tree import delete_later
from trivet.engine.checkpoint import model
from trivet.engine.instance.context import Context
from trivet.engine.instance.ending import free
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.shipping import ships
from trivet.engine.instance.status import check


async def remove(context: Context, key: str, *, volumes: bool = False) -> None:
    """Remove an instance that does not run; `volumes` takes its anonymous volumes along.

    The caller holds the instance's lock.
    """
    record = context.table.find(key)
    check("remove", record.name, record.word)
    if ships(record):
        await asyncio.to_thread(context.shipping.farewell, record)
    await in_thread(_remove, context, record)
    context.freed.discard(record.id)
    if ships(record):
        await asyncio.to_thread(context.shipping.announce)
    if volumes and record.anonymous_volumes:
        others = {volume for each in context.table.all() for volume in each.volumes}
        for volume in set(record.anonymous_volumes) - others:  # what was taken over from it stays
            await asyncio.to_thread(context.volumes.remove, volume)
    context.emit("remove", record)


def _remove(context: Context, record: InstanceRecord) -> None:
    """Give back what others may want, then forget it, then delete its files; blocking.

    A crash before the record goes leaves an instance that can be removed, or started; one after it leaves files of
    nobody, which the next engine deletes (reconcile.py).
    """
    free(context, record)
    context.networks.release(record.id)
    with context.records.transaction():
        for each in model.of_instance(context, record.id):
            model.table(context).delete(each.id)
        context.table.delete(record.id)
    context.snapshotter(record).remove(record.id)
    delete_later(context.place(record.id).state)
