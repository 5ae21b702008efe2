"""Multiplying an instance: copies that go on from the same moment, with names, addresses and disks of their own."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec

from trivet.base.error import AlreadyExists, Conflict, InvalidArgument, Unsupported
from trivet.base.identity import check_name, new_id
from trivet.base.thread import in_thread
from trivet.base.tree import delete
from trivet.client.schema import InstanceRequest
from trivet.client.schema_checkpoint import Cloned, CloneRequest
from trivet.client.schema_network import EndpointRequest
from trivet.engine.checkpoint import model, take
from trivet.engine.instance import create, remove, start, stop
from trivet.engine.instance.attachment import OTHER
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word, check
from trivet.engine.machine import filling, twin
from trivet.engine.snapshot.duplicate import duplicate
from trivet.isolation import computer
from trivet.isolation.driver import Introducing, Saved, Saving
from trivet.isolation.plan import Level

MOST = 1000


async def clone(context: Context, key: str, wish: CloneRequest) -> Cloned:
    """Make copies of an instance, running if it runs. All or nothing.

    A machine with a system of its own has to learn who it is: its copies have its disks of one moment, and boot, or
    with `memory` go on, and are told by their agents.

    Raises `NoMemory`, `Unsupported` for volumes, `AlreadyExists` for a name, and what create and start raise.
    """
    if not 1 <= wish.count <= MOST:
        raise InvalidArgument(f"cannot make {wish.count} clones: from 1 to {MOST} at a time are possible")
    record = context.table.find(key)
    names = _names(context, record, wish)
    place = model.home(context, key) / f".clone-{new_id()[:16]}"
    async with AsyncExitStack() as after:
        after.push_async_callback(asyncio.to_thread, shutil.rmtree, place, True)
        async with context.locks.hold(key, "cloning"):
            record = context.table.find(key)
            check("clone", record.name, record.word)
            filling.refuse(record, "clone")
            _check_volumes(record)
            runs = record.word is Word.RUNNING
            if runs and record.plan.level is not Level.VM:
                raise take.NoMemory(record, "clone")
            if wish.memory:
                await in_thread(_check_memory, context, record)
            boots = record.plan.hardware is not None and runs and not wish.memory
            copy = twin.copy if boots else partial(take.save, go_on=True)
            pause = await in_thread(copy, context, record, place)
        memory = None if boots else await in_thread(_load, context, record, place, after)
        async with AsyncExitStack() as undo:
            ids = [await _one(context, record, name, place, memory, wish, undo) for name in names]
            for each in ids if boots else ():
                async with context.locks.hold(each, "starting"):
                    await start.start(context, each)
            if memory is not None:
                await asyncio.gather(*(_introduce(context, each) for each in ids))
            undo.pop_all()
    context.emit("clone", record, clones=" ".join(names))
    return Cloned(ids=ids, names=names, pause=pause)


async def _one(
    context: Context,
    record: InstanceRecord,
    name: str,
    place: Path,
    memory: Saved | None,
    wish: CloneRequest,
    undo: AsyncExitStack,
) -> str:
    made = await create.create(context, request_of(record, name, publish=wish.publish), fill=_filling(place))
    undo.push_async_callback(_remove, context, made.id)
    clone = context.table.find(made.id)
    request = msgspec.structs.replace(clone.request, image=record.request.image)
    context.table.update(clone.id, clone.change(image=record.image, request=request))
    if memory is not None:
        driver = context.driver(record)
        assert isinstance(driver, Saving)
        _place_alike(context, clone.id, record)
        begin = driver.restore
        async with context.locks.hold(clone.id, "starting"):
            await start.start(context, clone.id, begin=lambda plan: begin(plan, memory, record.plan))
    return clone.id


def _place_alike(context: Context, key: str, record: InstanceRecord) -> None:
    """Put a machine's disks where the original has them: those that were plugged in are in slots."""
    if record.plan.hardware is None:
        return
    clone = context.table.find(key)
    parts, slots = computer.hardware(clone.plan), {each.name: each.port for each in record.plan.hardware.disks}
    disks = tuple(msgspec.structs.replace(each, port=slots[each.name]) for each in parts.disks)
    hardware = msgspec.structs.replace(parts, disks=disks)
    context.table.update(key, clone.change(plan=msgspec.structs.replace(clone.plan, hardware=hardware)))


async def _introduce(context: Context, key: str) -> None:
    record = context.table.find(key)
    driver = context.driver(record)
    if isinstance(driver, Introducing):
        async with context.locks.hold(key, "starting"):
            await in_thread(driver.introduce, context.table.find(key).plan)


def request_of(record: InstanceRecord, name: str, *, publish: bool) -> InstanceRequest:
    """Ask for the same under another name; what can be had only once is left out."""
    request = record.request
    networks = [_endpoint(wish) for wish in request.networks]
    ports = [msgspec.structs.replace(port, host_port=0) for port in request.ports] if publish else []
    return msgspec.structs.replace(
        request,
        name=name,
        image=record.image_id,
        hostname=name if request.hostname else "",
        networks=networks,
        ports=ports,
        publish_all=request.publish_all and publish,
    )


def _endpoint(wish: EndpointRequest) -> EndpointRequest:
    if wish.network.startswith(OTHER):
        raise Unsupported(f"cannot clone an instance that shares network {wish.network}")
    return EndpointRequest(network=wish.network, priority=wish.priority)


def _filling(place: Path) -> Callable[[InstanceRecord], None]:
    def fill(clone: InstanceRecord) -> None:
        upper = Path(clone.plan.root.upper)
        delete(upper)
        duplicate(take.written(clone, place), upper)

    return fill


def _load(context: Context, record: InstanceRecord, place: Path, after: AsyncExitStack) -> Saved | None:
    driver = context.driver(record)
    if record.word is not Word.RUNNING or not isinstance(driver, Saving):
        return None
    return after.enter_context(driver.saved(place))


def _check_memory(context: Context, record: InstanceRecord) -> None:
    if record.word is not Word.RUNNING:
        raise Conflict(f"cannot clone instance {record.name} with its memory: it is {record.word}")
    driver = take.saving(context, record, "clone")
    if isinstance(driver, Introducing):
        driver.check_copying(record.plan)


def _check_volumes(record: InstanceRecord) -> None:
    if record.volumes:
        raise Unsupported(
            f"cannot clone instance {record.name}: it would share volume {record.volumes[0]} with its clones",
            hint=f"trivet volume clone {record.volumes[0]} NEW, and run another instance with that",
        )


def _names(context: Context, record: InstanceRecord, wish: CloneRequest) -> list[str]:
    pattern = wish.name or f"{record.name}-{{}}"
    if "{}" not in pattern and wish.count > 1:
        pattern += "-{}"
    if "{}" not in pattern:
        chosen = [pattern]
    else:
        numbered = (pattern.replace("{}", str(number)) for number in itertools.count(1))
        chosen = list(itertools.islice((name for name in numbered if context.table.by_name(name) is None), wish.count))
    for name in chosen:
        if context.table.by_name(check_name("instance", name)) is not None:
            raise AlreadyExists(f"instance {name} already exists")
    return chosen


async def _remove(context: Context, key: str) -> None:
    async with context.locks.hold(key, "removing"):
        await stop.stop(context, key, grace=0)
        if context.table.get(key) is not None:
            await remove.remove(context, key, volumes=True)
