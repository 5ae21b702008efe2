"""Changing an instance's isolation level: it keeps its id, name, files, volumes, addresses, ports and log.

    stop (if it runs) · the new level's root, filled from the old one · the record · start (if it ran) · the old root

Until the new level runs the old one can be gone back to; the engine does that by itself when something fails. One
that was killed in between finds one record, says which root is the right one, and starts what ran.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import msgspec

from trivet.base.error import Conflict, Unsupported
from trivet.base.thread import in_thread
from trivet.client.schema import InstanceRequest, LevelName
from trivet.engine.instance import start, stop
from trivet.engine.instance.context import Context
from trivet.engine.instance.create import LevelMissing, Parts, planned
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.owner import separate
from trivet.engine.instance.status import Word, check
from trivet.engine.snapshot.drive import DriveSnapshotter
from trivet.engine.snapshot.transfer import to_directory, to_drive
from trivet.isolation.driver import Readable
from trivet.isolation.plan import Root


async def relevel(context: Context, key: str, level: LevelName) -> float:
    """Change the level; seconds between the end of the program and its new start, 0 if it doesn't run.

    The caller holds the instance's lock. Raises what create and start do; the instance is then as it was.
    """
    record = context.table.find(key)
    check("change the level of", record.name, record.word)
    if record.request.isolation == level:
        raise Conflict(f"instance {record.name} is at level {level} already")
    if record.plan.hardware or record.request.auto_remove:
        cause = "it has an operating system of its own" if record.plan.hardware else "it is removed when it ends (--rm)"
        raise Unsupported(f"cannot change the level of instance {record.name}: {cause}")
    ran = record.word is Word.RUNNING
    async with AsyncExitStack() as undo:
        made = await in_thread(_planned, context, record, level, undo)
        if ran:
            undo.push_async_callback(_start_again, context, record)
            await stop.stop(context, key)
            context.table.update(key, context.table.find(key).change(word=Word.RESTARTING, wanted=True))
        begun = time.monotonic()
        await in_thread(_fill, context, record, made)
        stopped = context.table.find(key)
        undo.callback(context.table.update, key, stopped)
        context.table.update(
            key,
            stopped.change(request=made.request, plan=made.plan, acceleration=made.acceleration, origin=""),
        )
        if ran:
            await start.start(context, key)
        undo.pop_all()
    if made.plan.owner:
        context.owners.forget(made.plan.owner)
    seconds = time.monotonic() - begun if ran else 0.0
    if record.plan.root.form != made.plan.root.form:
        await in_thread(context.snapshotter(record).remove, key)
    context.emit("relevel", context.table.find(key), level=level)
    return seconds


def drop_other_roots(context: Context, record: InstanceRecord) -> None:
    """Remove roots in forms that the instance's level doesn't have, which a change of level left. Blocking."""
    for form, snapshotter in context.snapshotters.items():
        if form != record.plan.root.form and record.id in snapshotter.instances():
            snapshotter.remove(record.id)


def _planned(context: Context, record: InstanceRecord, level: LevelName, undo: AsyncExitStack) -> InstanceRecord:
    """Make the new level's root, empty, and plan with it. Blocking."""
    ability = context.drivers[level].ability()
    if ability.missing:
        raise LevelMissing(ability)
    request = msgspec.structs.replace(record.request, isolation=level)
    image = context.images.find(record.image_id)
    root = record.plan.root
    if ability.root != root.form:
        snapshotter = context.snapshotters[ability.root]
        snapshotter.remove(record.id)
        root = snapshotter.create(record.id, image, request.storage_size)
        undo.push_async_callback(asyncio.to_thread, snapshotter.remove, record.id)
    owner = context.owners.reserve(context.place(record.id).run) if separate(request) else None
    if owner:
        undo.callback(context.owners.forget, owner)
    settings = context.images.config(image).defaults
    mounts = record.plan.mounts
    has: Parts = {"key": record.id, "name": record.name, "root": root, "mounts": mounts, "owner": owner}
    plan = planned(context, _checked(request), settings, ability, **has)
    return record.change(request=request, plan=plan, acceleration=ability.acceleration)


def _checked(request: InstanceRequest) -> InstanceRequest:
    if request.ports and request.isolation == "process":
        raise Unsupported("cannot publish ports of an instance at level process: it uses the host's own network")
    return request


def _fill(context: Context, before: InstanceRecord, after: InstanceRecord) -> None:
    old, new = before.plan.root, after.plan.root
    if old.form == new.form:
        return
    driver, snapshotter = context.driver(before), context.snapshotter(after)
    if isinstance(snapshotter, DriveSnapshotter):
        to_drive(old, new, after.request.storage_size or snapshotter.size)
    elif isinstance(driver, Readable):
        reader = driver
        to_directory(lambda write: reader.read(before.plan, write, written=True), _plain(new))


def _plain(root: Root) -> Root:
    return msgspec.structs.replace(root, copied=False)


async def _start_again(context: Context, record: InstanceRecord) -> None:
    if context.table.find(record.id).word is not Word.RUNNING:
        await start.start(context, record.id)
