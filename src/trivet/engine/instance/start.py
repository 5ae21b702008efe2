"""Starting an instance: network, files, monitor, ports, go. What fails is undone in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass

import msgspec

from trivet.base.clock import now_ns
from trivet.base.error import TrivetError
from trivet.base.thread import in_thread
from trivet.client.schema_health import Health
from trivet.client.schema_network import EndpointRequest, Port
from trivet.engine.instance import link, shared, staging
from trivet.engine.instance.attachment import other, share
from trivet.engine.instance.context import Context
from trivet.engine.instance.ending import end_lock
from trivet.engine.instance.line import Line
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.neighbour import describe, refresh
from trivet.engine.instance.shipping import ships
from trivet.engine.instance.status import Word, check
from trivet.engine.instance.stream import Attach, Failed, Stream, refusal
from trivet.engine.instance.watch import Watch
from trivet.engine.network import names
from trivet.engine.secret import take
from trivet.isolation.driver import forking
from trivet.isolation.owner import beside, let_go
from trivet.isolation.plan import Plan
from trivet.isolation.spare import having
from trivet.launch.channel import Channel

Begin = Callable[[Plan], Channel]


@dataclass(frozen=True)
class Ready:
    """What has been set up already and waits for the last word: its monitor's connections, and how it is undone."""

    channels: list[Channel]
    undo: AsyncExitStack


async def start(
    context: Context,
    key: str,
    attach: Attach | None = None,
    *,
    begin: Begin | None = None,
    ready: Ready | None = None,
) -> Stream | None:
    """Start an instance; returns a stream attached from its first byte on when `attach` asks for one.

    With `begin` it begins otherwise than its level does: where it, or another one, was saved. What is `ready` was set
    up before, for nobody, and is undone with the start if that fails.

    The caller holds the instance's lock. Raises the level's error when the program cannot be set up
    or executed; the record then says so, and the instance can be started again.
    """
    async with context.locks.hold(end_lock(key), "starting"):  # its last run may still be being freed
        record = context.table.find(key)
    check("start", record.name, record.word)
    with ExitStack() as held:
        for gate in context.gates:
            held.enter_context(gate.passing(record))
        return await _start(context, record, attach, begin, ready)


async def _start(
    context: Context, record: InstanceRecord, attach: Attach | None, begin: Begin | None, ready: Ready | None
) -> Stream | None:
    async with AsyncExitStack() as undo:
        try:
            if ready:
                await undo.enter_async_context(ready.undo)
                record, channels = await _name(context, record, undo), ready.channels
            else:
                with context.stock.starting():
                    record, channels = await in_thread(
                        set_up, context, record, undo, _recorded, begin=begin, attached=attach is not None
                    )
            watch, client, pid = await _run(record, attach, channels, undo)
        except (TrivetError, OSError) as error:
            code = getattr(error, "exit_code", 0) or record.exit_code
            context.table.update(record.id, record.change(wanted=False, ports=(), error=str(error), exit_code=code))
            context.emit("die", record, error=str(error))
            raise
        undo.pop_all()
    record = record.change(
        word=Word.RUNNING,
        pid=pid,
        origin=await _origin(context, record),
        started=now_ns(),
        finished=0,
        exit_code=0,
        exit_signal=0,
        out_of_memory=False,
        error="",
        health=Health() if record.check else None,
    )
    context.table.update(record.id, record)
    context.watches[record.id] = watch
    context.started.put_nowait((record.id, watch))
    if record.plan.owner:
        context.stock.refill()
    context.emit("start", record)
    return client


def set_up(
    context: Context,
    record: InstanceRecord,
    undo: AsyncExitStack,
    keep: Callable[[Context, InstanceRecord], None],
    *,
    begin: Begin | None = None,
    attached: bool = True,
) -> tuple[InstanceRecord, list[Channel]]:
    """Do all that precedes the program's first instruction; blocking.

    The record is told to `keep` before there is anything a crash would leave running.
    Returns a connection to the monitor, and with `attached` another one for a client.
    """
    context.images.judge(record.image, record.image_id)
    driver, networks = context.driver(record), context.networks
    context.freed.discard(record.id)
    context.secrets.give(record.request.secrets, context.place(record.id).state)
    for volume in record.volumes:
        context.volumes.ready(volume)
    undo.push_async_callback(asyncio.to_thread, take, context.place(record.id).state)
    undo.push_async_callback(asyncio.to_thread, networks.detach, record.id)
    undo.push_async_callback(asyncio.to_thread, networks.unpublish, record.id)
    plan, ports = _connect(context, record, ready=begin is None and not record.started)
    plan, linked = link.tell(context, record, plan) if record.request.links else (plan, record.linked)
    plan = staging.stage(context.run, record.id, plan)
    undo.push_async_callback(asyncio.to_thread, staging.clear, context.run, record.id)
    record = record.change(plan=plan, ports=ports, linked=linked, wanted=True)
    keep(context, record)
    undo.push_async_callback(asyncio.to_thread, driver.release, plan)
    driver.prepare(plan)
    if ships(record):
        context.shipping.announce()
    channels = [begin(plan) if begin else driver.start(plan)]
    try:
        return record, [*channels, driver.attach(plan)] if attached else channels
    except BaseException:
        channels[0].close()
        raise


def _recorded(context: Context, record: InstanceRecord) -> None:
    context.table.update(record.id, record)
    if record.plan.owner:
        context.owners.forget(record.plan.owner)


async def _name(context: Context, record: InstanceRecord, undo: AsyncExitStack) -> InstanceRecord:
    """Let an instance that was set up for nobody be found, by its name and its ports."""
    context.images.judge(record.image, record.image_id)
    record = refresh(context, record)  # the host's resolvers may be others by now
    if [use.kind for use in record.plan.attachments] == ["none"]:
        context.networks.rename(record.id, record.name)
        return record
    undo.push_async_callback(asyncio.to_thread, context.networks.unpublish, record.id)
    return await in_thread(_announce, context, record)


def _announce(context: Context, record: InstanceRecord) -> InstanceRecord:
    context.networks.rename(record.id, record.name)
    if not record.request.ports:
        return record
    record = record.change(ports=tuple(context.networks.publish(record.id, record.request.ports)))
    context.table.update(record.id, record)
    return record


def _connect(context: Context, record: InstanceRecord, *, ready: bool) -> tuple[Plan, tuple[Port, ...]]:
    """Give the instance its interface, its files (addresses may have changed) and its published ports.

    With `ready` it may take namespaces that were made ahead, and then has their ids from now on.
    """
    request, networks = record.request, context.networks
    plan = shared.join(context, request, record.plan)
    if reference := other(request):
        return share(context, reference, plan), ()
    form = context.driver(record).ability().network
    wishes = request.networks or ([EndpointRequest(network="host")] if form == "host" else [])
    with ExitStack() as left:
        unconnected = all(use.kind == "none" for use in plan.attachments)
        spare = context.stock.take(cheap=unconnected) if ready and plan.owner and not plan.owner.borrowed else None
        if spare:
            left.callback(spare.close)
        owner = having(plan.owner, spare)
        uses = networks.attach(record.id, record.name, form, wishes, owner, request.dns, spare)
        if owner and spare and all(use.kind == "none" for use in uses):
            owner = msgspec.structs.replace(owner, network=beside(owner))
            let_go(owner)
            spare.settle(owner.path, owner.network)
    files = describe(context, record)
    names.write(files)
    ports = networks.publish(record.id, request.ports)
    return msgspec.structs.replace(plan, attachments=uses, files=files, owner=owner), tuple(ports)


async def _run(
    record: InstanceRecord, attach: Attach | None, channels: list[Channel], undo: AsyncExitStack
) -> tuple[Watch, Stream | None, int]:
    """Attach, and let the program go."""
    streams = [Line(channel) for channel in channels]
    for stream in streams:
        undo.callback(stream.close)
    watch, client = Watch(streams[0]), streams[1] if attach else None
    for needless in () if attach else streams[1:]:
        needless.close()
    if attach and client:
        await client.attach(stdin=attach.stdin, stdout=attach.stdout, stderr=attach.stderr)
    try:
        pid = await watch.go(client)
    except Failed as failure:
        raise refusal(record.plan.program, failure, record.name) from None
    return watch, client, pid


async def _origin(context: Context, record: InstanceRecord) -> str:
    driver = forking(context.driver(record))
    return await asyncio.to_thread(driver.origin, record.plan) if driver else ""
