"""Taking a snapshot: of a running instance with its memory, of one that doesn't run without."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path

from trivet.base.clock import now_ns
from trivet.base.error import AlreadyExists, Unsupported
from trivet.base.identity import check_name, new_id
from trivet.base.thread import in_thread
from trivet.engine.checkpoint import model
from trivet.engine.checkpoint.model import CheckpointRecord
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word, check
from trivet.engine.instance.still import let_go_on, recorded_still
from trivet.engine.machine import filling
from trivet.engine.snapshot.duplicate import duplicate
from trivet.engine.snapshot.making import disk_usage
from trivet.isolation.driver import Driver, Saving
from trivet.store.content import explaining_full


class NoMemory(Unsupported):
    """A running instance of a level that can't save what it has in memory."""

    def __init__(self, record: InstanceRecord, verb: str) -> None:
        level = record.request.isolation
        super().__init__(
            f"cannot {verb} running instance {record.name}: what its program has in memory would be lost "
            f"at level {level}",
            hint=f"trivet stop {record.name} first; without its memory it can be done at every level",
        )


def saving(context: Context, record: InstanceRecord, verb: str) -> Driver:
    """Return the driver of a running instance if it can save it. Raises `NoMemory`, and the level's own refusal."""
    driver = context.driver(record)
    if not isinstance(driver, Saving):
        raise NoMemory(record, verb)
    driver.check_saving(record.plan)
    return driver


async def take(context: Context, key: str, name: str, *, end: bool) -> CheckpointRecord:
    """Save an instance as it is; with `end` it ends at that moment. All or nothing.

    The caller holds the instance's lock. Raises `NoMemory`, `AlreadyExists`, `StoreFull`; then the instance goes on.
    """
    record = context.table.find(key)
    check("checkpoint" if end else "take a snapshot of", record.name, record.word)
    filling.refuse(record, "take a snapshot of")
    known = [each.name for each in model.of_instance(context, key)]
    numbers = (str(number) for number in range(1, len(known) + 2))
    name = check_name("snapshot", name) if name else next(each for each in numbers if each not in known)
    if name in known:
        raise AlreadyExists(f"instance {record.name} has a snapshot {name} already")
    place = model.home(context, key) / new_id()[:16]
    async with AsyncExitStack() as after, AsyncExitStack() as undo:
        undo.push_async_callback(asyncio.to_thread, shutil.rmtree, place, True)
        if end:
            after.enter_context(recorded_still(context, record))
            undo.push_async_callback(asyncio.to_thread, let_go_on, context, record)
        pause = await in_thread(save, context, record, place, go_on=not end)
        made = CheckpointRecord(
            id=f"{key}/{place.name}",
            name=name,
            instance=key,
            request=record.request,
            plan=record.plan,
            created=now_ns(),
            parent=record.checkpoint,
            memory=record.word is Word.RUNNING,
            pause=pause,
            size=await asyncio.to_thread(disk_usage, place),
        )
        model.table(context).insert(made.id, made)
        undo.pop_all()
        if end:
            await in_thread(_end, context, record)
    context.table.update(key, context.table.find(key).change(checkpoint=name))
    context.emit("checkpoint", record, snapshot=name)
    return made


def save(context: Context, record: InstanceRecord, place: Path, *, go_on: bool) -> float:
    """Save what an instance has into a new directory; seconds it stood still. Blocking."""
    place.parent.mkdir(mode=0o700, exist_ok=True)

    def copy() -> None:
        duplicate(Path(record.plan.root.upper), written(record, place))

    with explaining_full(place):
        if record.word is Word.RUNNING:
            driver = saving(context, record, "save")
            assert isinstance(driver, Saving)
            with recorded_still(context, record) if go_on else nullcontext():
                return driver.save(record.plan, place, copy, go_on=go_on)
        place.mkdir(mode=0o700)
        copy()
        return 0.0


def _end(context: Context, record: InstanceRecord) -> None:
    driver = context.driver(record)
    assert isinstance(driver, Saving)
    driver.end(record.plan)


def written(record: InstanceRecord, place: Path) -> Path:
    """Tell where in a snapshot is what the instance had written."""
    return place / ("drive" if record.plan.root.form == "drive" else "upper")
