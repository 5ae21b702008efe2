"""Start-up: read the records, look at what runs, and make the two agree. The same after `kill -9` as after a reboot."""

from __future__ import annotations

import asyncio
import logging
import shutil

from trivet.base.clock import now_ns
from trivet.base.error import TrivetError
from trivet.engine.checkpoint.revert import repair
from trivet.engine.instance import ahead, staging
from trivet.engine.instance.context import Context
from trivet.engine.instance.ending import finish, free
from trivet.engine.instance.line import Line
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.relevel import drop_other_roots
from trivet.engine.instance.remove import remove
from trivet.engine.instance.restart import delay
from trivet.engine.instance.status import Word
from trivet.engine.instance.steward import start_again
from trivet.engine.instance.still import all_go_on
from trivet.engine.instance.watch import Watch, lost_exit
from trivet.engine.network.model import Endpoint
from trivet.isolation.driver import guided, pluggable
from trivet.isolation.plan import Attachment

log = logging.getLogger(__name__)


async def reconcile(context: Context) -> list[str]:
    """Adopt what runs, record what ended unseen, free what a crash left; return the ids of those to be restarted.

    They are started by `restart`, once the networks are as the records say.
    """
    await asyncio.to_thread(all_go_on, context)
    for record in context.table.all():
        try:
            await _settle(context, record)
        except (TrivetError, OSError) as error:
            log.error("cannot reconcile instance %s: %s", record.name, error)
    await asyncio.to_thread(_disconnect_strangers, context)
    await asyncio.to_thread(_sweep_strangers, context)
    await asyncio.to_thread(ahead.sweep, context, {record.id for record in context.table.all()})
    return [record.id for record in context.table.all() if record.word == Word.RESTARTING]


def restart(context: Context, keys: list[str]) -> None:
    """Start instances that are `restarting`, each in a task of its own."""
    for key in keys:
        context.background(asyncio.create_task(start_again(context, key, 0)))


async def _settle(context: Context, record: InstanceRecord) -> None:
    driver = context.driver(record)
    status = await asyncio.to_thread(driver.status, record.plan)
    await asyncio.to_thread(drop_other_roots, context, record)
    await asyncio.to_thread(repair, context, record, running=status.word in ("running", "paused"))
    if status.word in ("running", "paused"):
        await _adopt(context, record, status.pid, status.word)
    elif record.word in (Word.RUNNING, Word.PAUSED) or (status.exit and record.wanted):
        if record.word not in (Word.RUNNING, Word.PAUSED):  # let go and ended before anybody wrote it down
            context.table.update(record.id, record.change(word=Word.RUNNING, started=record.started or now_ns()))
        end = status.exit or lost_exit("the host was restarted" if status.word == "gone" else "its monitor was killed")
        await finish(context, record.id, end)
        await _what_was_agreed(context, record.id)
    else:  # set up but never let go, or ended and half freed
        await asyncio.to_thread(free, context, record)
        if record.word == Word.EXITED:  # perhaps killed between an end and what was agreed for it
            await _what_was_agreed(context, record.id)


async def _adopt(context: Context, record: InstanceRecord, pid: int, word: str) -> None:
    """Watch a running instance again. One that was let go just before the crash is recorded as running now."""
    if record.word not in (Word.RUNNING, Word.PAUSED):
        record = record.change(word=Word.RUNNING, started=record.started or record.created)
    record = record.change(pid=pid, word=Word(word))
    context.table.update(record.id, record)
    stream = Line(await asyncio.to_thread(context.driver(record).attach, record.plan))
    await stream.attach()
    watch = Watch(stream)
    context.watches[record.id] = watch
    context.started.put_nowait((record.id, watch))


async def _what_was_agreed(context: Context, key: str) -> None:
    record = context.table.get(key)
    if record is None:
        return
    if record.request.auto_remove:
        async with context.locks.hold(key, "removing"):
            await remove(context, key, volumes=True)
    elif delay(record) is not None:
        context.table.update(key, record.change(word=Word.RESTARTING))


def _disconnect_strangers(context: Context) -> None:
    """Take back what a crash left of connecting an instance, before its record knew of it; finish a disconnecting."""
    networks, ledger = context.networks, context.networks.ledger
    for endpoint in ledger.endpoints():
        record, network = context.table.get(endpoint.instance), ledger.network(endpoint.network)
        if record is None or not _strange(record, endpoint, network.name):
            continue
        log.info("instance %s is taken from network %s: no record has it there", record.name, network.name)
        try:
            if endpoint.device:
                runs = context.driver(record).status(record.plan).word == "running"
                if runs:
                    _unplug_stranger(context, record, endpoint, network.name)
                networks.disconnect(record.id, record.name, network.id)
                if runs and (driver := guided(context.driver(record))):
                    driver.direct(record.plan, networks.routes(record.id))
            else:
                ledger.free(endpoint)
        except (TrivetError, OSError) as error:
            log.error("cannot take instance %s from network %s: %s", record.name, network.name, error)


def _strange(record: InstanceRecord, endpoint: Endpoint, network: str) -> bool:
    """Tell whether an instance isn't to be on a network; one that left its last still has that, without a device."""
    uses = [use for use in record.plan.attachments if use.network == network]
    left = record.word in (Word.RUNNING, Word.PAUSED) and endpoint.device and not any(use.device for use in uses)
    return not uses or bool(left)


def _unplug_stranger(context: Context, record: InstanceRecord, endpoint: Endpoint, network: str) -> None:
    """Take the interface from a machine, if it was given it."""
    if endpoint.form == "tap" and (driver := pluggable(context.driver(record))):
        name, device, mac = endpoint.interface, endpoint.device, endpoint.mac
        use = Attachment(kind="tap", network=network, name=name, device=device, mac=mac)
        driver.unplug(record.plan, use)


def _sweep_strangers(context: Context) -> None:
    """Delete directories and writable layers of instances that were never recorded (a crash during creation)."""
    known = {record.id for record in context.table.all()}
    staging.sweep(context.run, known)
    for snapshotter in context.snapshotters.values():
        for key in snapshotter.instances() - known:
            if not key.startswith("build-"):
                snapshotter.remove(key)
    states = context.root / "instance"
    for directory in states.iterdir() if states.is_dir() else ():
        if directory.name not in known:
            shutil.rmtree(directory, ignore_errors=True)
