"""Starting an instance: network, files, monitor, ports, go. What fails is undone in reverse."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import msgspec

from trivet.base.clock import now_ns
from trivet.base.error import TrivetError
from trivet.client.schema import EndpointRequest, Port
from trivet.client.schema_health import Health
from trivet.engine.instance import shared
from trivet.engine.instance.attachment import other, share
from trivet.engine.instance.context import Context
from trivet.engine.instance.ending import end_lock
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.neighbour import tell
from trivet.engine.instance.status import Word, check
from trivet.engine.instance.stream import Attach, Failed, Stream, refusal
from trivet.engine.instance.watch import Watch
from trivet.engine.network import names
from trivet.isolation.owner import hold
from trivet.isolation.plan import Plan


async def start(context: Context, key: str, attach: Attach | None = None) -> Stream | None:
    """Start an instance; returns a stream attached from its first byte on when `attach` asks for one.

    The caller holds the instance's lock. Raises the level's error when the program cannot be set up
    or executed; the record then says so, and the instance can be started again.
    """
    async with context.locks.hold(end_lock(key), "starting"):  # its last run may still be being freed
        record = context.table.find(key)
    check("start", record.name, record.word)
    async with AsyncExitStack() as undo:
        try:
            plan, ports = await _connect(context, record, undo)
            record = record.change(plan=plan, ports=ports, wanted=True)
            context.table.update(record.id, record)
            watch, client, pid = await _run(context, record, attach, undo)
        except (TrivetError, OSError) as error:
            context.table.update(record.id, record.change(wanted=False, ports=(), error=str(error)))
            context.emit("die", record, error=str(error))
            raise
        undo.pop_all()
    record = record.change(
        word=Word.RUNNING,
        pid=pid,
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
    context.emit("start", record)
    await asyncio.to_thread(tell, context, key)
    return client


async def _connect(context: Context, record: InstanceRecord, undo: AsyncExitStack) -> tuple[Plan, tuple[Port, ...]]:
    """Give the instance its interface, its files (addresses may have changed) and its published ports."""
    request, networks = record.request, context.networks
    plan = shared.join(context, request, record.plan)
    if reference := other(request):
        return share(context, reference, plan), ()
    form = (await asyncio.to_thread(context.driver(record).ability)).network
    undo.push_async_callback(asyncio.to_thread, networks.detach, record.id)
    owner = plan.owner
    wishes = request.networks or ([EndpointRequest(network="host")] if form == "host" else [])
    uses = await asyncio.to_thread(networks.attach, record.id, record.name, form, wishes, owner)
    if owner and not any(use.kind == "netns" for use in uses):  # else it was made with the network's namespace
        await asyncio.to_thread(hold, owner)
    files = networks.files(
        record.id,
        plan.hostname,
        context.place(record.id).files,
        dns=request.dns,
        dns_search=request.dns_search,
        dns_options=request.dns_options,
        extra_hosts=request.extra_hosts,
    )
    names.write(files)
    undo.push_async_callback(asyncio.to_thread, networks.unpublish, record.id)
    ports = await asyncio.to_thread(networks.publish, record.id, request.ports)
    return msgspec.structs.replace(plan, attachments=uses, files=files), tuple(ports)


async def _run(
    context: Context, record: InstanceRecord, attach: Attach | None, undo: AsyncExitStack
) -> tuple[Watch, Stream | None, int]:
    """Set the program up, attach, and let it go."""
    driver, plan = context.driver(record), record.plan
    undo.push_async_callback(asyncio.to_thread, driver.release, plan)
    await asyncio.to_thread(driver.prepare, plan)
    channel = await asyncio.to_thread(driver.start, plan)
    watch = Watch(await Stream.adopt(channel))
    undo.callback(watch.close)
    client = None
    if attach:
        client = await Stream.adopt(await asyncio.to_thread(driver.attach, plan))
        undo.callback(client.close)
        await client.attach(stdin=attach.stdin, stdout=attach.stdout, stderr=attach.stderr)
    try:
        pid = await watch.go(client)
    except Failed as failure:
        raise refusal(plan.program, failure, record.name) from None
    return watch, client, pid
