"""Going back: an instance becomes what a snapshot says, and runs on from there if it ran then.

What it has written meanwhile stands aside (`PATH.before`) until it runs; an engine that was killed in between puts
it back, or lets go of it, by whether it does.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from trivet.base.error import Conflict
from trivet.base.thread import in_thread
from trivet.base.tree import delete
from trivet.engine.checkpoint import model, take
from trivet.engine.checkpoint.model import CheckpointRecord
from trivet.engine.instance import start, stop
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word, check
from trivet.engine.snapshot.duplicate import duplicate
from trivet.isolation.driver import Introducing, Saved, Saving

BEFORE, NEW = ".before", ".new"


async def revert(context: Context, key: str, name: str, *, idle: bool) -> InstanceRecord:
    """Let an instance be what a snapshot says; with `idle` only one that doesn't run.

    The caller holds the instance's lock. Raises `NoSuchCheckpoint`, `Corrupt`, and what a start does; then the disk is
    what it was before, and the instance doesn't run.
    """
    record = context.table.find(key)
    check("restore" if idle else "revert", record.name, record.word)
    saved = model.find(context, record, name)
    if record.request.auto_remove:
        raise Conflict(f"cannot revert instance {record.name}: it is removed when it ends (--rm)")
    if saved.plan.level is not record.plan.level:
        raise Conflict(
            f"cannot revert instance {record.name}: snapshot {saved.name} was taken at level {saved.plan.level}",
            hint=f"trivet relevel {record.name} --isolation {saved.plan.level}",
        )
    place = model.home(context, key) / saved.id.rpartition("/")[2]
    upper = Path(record.plan.root.upper)
    async with AsyncExitStack() as undo:
        memory = await in_thread(_load, context, record, saved, place, undo)
        await in_thread(_prepare, take.written(record, place), upper)
        undo.callback(delete, _beside(upper, NEW))
        await stop.stop(context, key, grace=0)
        _exchange(upper)
        async with AsyncExitStack() as back:
            back.callback(put_back, upper)
            record = _as_it_was(context.table.find(key), saved)
            context.table.update(key, record)
            if memory is not None:
                driver = context.driver(record)
                assert isinstance(driver, Saving)
                begin = driver.restore
                await start.start(context, key, begin=lambda plan: begin(plan, memory, saved.plan))
                if isinstance(driver, Introducing):
                    back.push_async_callback(stop.stop, context, key, grace=0)
                    await in_thread(driver.arrive, context.table.find(key).plan)
            back.pop_all()
        await in_thread(delete, _beside(upper, BEFORE))
    record = context.table.find(key).change(checkpoint=saved.name)
    context.table.update(key, record)
    context.emit("revert", record, snapshot=saved.name)
    return record


def repair(context: Context, record: InstanceRecord, *, running: bool) -> None:
    """Finish, or undo, what an engine was killed in the middle of. Blocking."""
    known = {each.id.rpartition("/")[2] for each in model.of_instance(context, record.id)}
    for place in model.home(context, record.id).glob("*"):
        if place.name not in known:
            delete(place)
    upper = Path(record.plan.root.upper)
    delete(_beside(upper, NEW))
    if running:
        delete(_beside(upper, BEFORE))
    else:
        put_back(upper)


def put_back(upper: Path) -> None:
    """Let the disk be what it was."""
    before = _beside(upper, BEFORE)
    if before.exists():
        delete(upper)
        before.rename(upper)


def _load(
    context: Context, record: InstanceRecord, saved: CheckpointRecord, place: Path, undo: AsyncExitStack
) -> Saved | None:
    driver = context.driver(record)
    if not saved.memory or not isinstance(driver, Saving):
        return None
    return undo.enter_context(driver.saved(place))


def _prepare(source: Path, upper: Path) -> None:
    delete(_beside(upper, NEW))
    duplicate(source, _beside(upper, NEW))


def _exchange(upper: Path) -> None:
    upper.rename(_beside(upper, BEFORE))
    _beside(upper, NEW).rename(upper)


def _as_it_was(record: InstanceRecord, saved: CheckpointRecord) -> InstanceRecord:
    """Take limits and networks from then, and the name from now."""
    request = msgspec.structs.replace(saved.request, name=record.request.name)
    plan = msgspec.structs.replace(saved.plan, name=record.plan.name)
    word = record.word if record.word is Word.CREATED else Word.EXITED
    return record.change(request=request, plan=plan, word=word)


def _beside(upper: Path, suffix: str) -> Path:
    return upper.with_name(upper.name + suffix)
