"""Networks and links of an instance that exists: one more, or one less, running or not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from trivet.base.error import Conflict
from trivet.client.schema_network import EndpointRequest, LinkRequest
from trivet.engine.instance.attachment import DEFAULT, OTHER, choose
from trivet.engine.instance.context import Context
from trivet.engine.instance.link import NoSuchLink, found
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.neighbour import refresh
from trivet.engine.instance.status import Word
from trivet.engine.network.model import NONE, NotConnected
from trivet.isolation.driver import guided, pluggable
from trivet.isolation.plan import Attachment


async def connect(context: Context, key: str, wish: EndpointRequest) -> None:
    """Put an instance on a network more. The caller holds its lock.

    Raises `Conflict` when it is there already, has no network of its own, or is a machine without a slot for it.
    """
    record = context.table.find(key)
    network = context.networks.find(wish.network)
    wish = msgspec.structs.replace(wish, network=network.name)
    wishes = _wishes(record)
    if network.name in [each.network for each in wishes]:
        raise Conflict(f"instance {record.name} is already connected to network {network.name}")
    _refuse_shared(record, wishes, "connect", network.name)
    wishes = [each for each in wishes if each.network != NONE]
    request = msgspec.structs.replace(record.request, networks=[*wishes, wish])
    ability = await asyncio.to_thread(context.driver(record).ability)
    uses = choose(request, ability, context.networks)
    if _runs(record):
        made = await asyncio.to_thread(_connect, context, record, wish)
        uses = (*(use for use in record.plan.attachments if use.kind == made.kind and use.device), made)
    plan = msgspec.structs.replace(record.plan, attachments=uses)
    await _record(context, record.change(request=request, plan=plan))
    _tell(context, "connect", record, network.id, network.name)


async def disconnect(context: Context, key: str, reference: str) -> None:
    """Take an instance from a network. The caller holds its lock. Raises `NotConnected`."""
    record = context.table.find(key)
    network = context.networks.find(reference)
    wishes = _wishes(record)
    left = [each for each in wishes if each.network != network.name]
    if len(left) == len(wishes) or network.name == NONE:
        raise NotConnected(record.name, network.name)
    _refuse_shared(record, wishes, "disconnect", network.name)
    uses = tuple(use for use in record.plan.attachments if use.network != network.name)
    if _runs(record):
        lone = [use for use in record.plan.attachments if not uses]
        uses = uses or tuple(msgspec.structs.replace(use, device="", mac="", addresses=()) for use in lone)
    request = msgspec.structs.replace(record.request, networks=left or [EndpointRequest(network=NONE)])
    plan = msgspec.structs.replace(record.plan, attachments=uses)
    if _runs(record):
        context.table.update(record.id, record.change(request=request, plan=plan))  # the next engine would finish it
        try:
            await asyncio.to_thread(_unplug, context, record, network.name)
        except BaseException:
            context.table.update(record.id, record)
            raise
        await asyncio.to_thread(context.networks.disconnect, record.id, record.name, network.id)
        await asyncio.to_thread(_direct, context, record)
    else:
        await asyncio.to_thread(context.networks.leave, record.id, network.id)
    ports = tuple(context.networks.ports(record.id)) if _runs(record) else record.ports
    await _record(context, record.change(request=request, plan=plan, ports=ports))
    _tell(context, "disconnect", record, network.id, network.name)


async def link(context: Context, key: str, wishes: Sequence[LinkRequest]) -> None:
    """Let an instance know others by names of its own, in place of earlier ones. The caller holds its lock."""
    record = context.table.find(key)
    new = [found(context, wish) for wish in wishes]
    aliases = {wish.alias for wish in new}
    await _relink(context, record, [*(each for each in record.request.links if each.alias not in aliases), *new])


async def unlink(context: Context, key: str, alias: str) -> None:
    """Take such a name away. The caller holds the instance's lock. Raises `NoSuchLink`."""
    record = context.table.find(key)
    left = [each for each in record.request.links if each.alias != alias]
    if len(left) == len(record.request.links):
        raise NoSuchLink(record.name, alias)
    await _relink(context, record, left)


async def _relink(context: Context, record: InstanceRecord, links: list[LinkRequest]) -> None:
    await _record(context, record.change(request=msgspec.structs.replace(record.request, links=links)))


async def _record(context: Context, record: InstanceRecord) -> None:
    context.table.update(record.id, record)
    if _runs(record):
        context.table.update(record.id, await asyncio.to_thread(refresh, context, record))


def _wishes(record: InstanceRecord) -> list[EndpointRequest]:
    level = record.request.isolation
    return record.request.networks or [EndpointRequest(network="host" if level == "process" else DEFAULT)]


def _runs(record: InstanceRecord) -> bool:
    return record.word in (Word.RUNNING, Word.PAUSED)


def _refuse_shared(record: InstanceRecord, wishes: list[EndpointRequest], action: str, network: str) -> None:
    shared = next((each.network for each in wishes if each.network == "host" or each.network.startswith(OTHER)), "")
    where = "from" if action == "disconnect" else "to"
    if shared:
        raise Conflict(f"cannot {action} instance {record.name} {where} network {network}: it uses network {shared}")


def _connect(context: Context, record: InstanceRecord, wish: EndpointRequest) -> Attachment:
    """Make the interface, and plug it into a machine; what was made goes again when that fails."""
    driver = pluggable(context.driver(record))
    if driver is None:
        return context.networks.connect(record.id, record.name, wish)
    made = context.networks.connect(record.id, record.name, wish, "tap")
    try:
        driver.plug(record.plan, made)
        try:
            _direct(context, record)
        except BaseException:
            driver.unplug(record.plan, made)
            raise
    except BaseException:
        context.networks.disconnect(record.id, record.name, wish.network)
        raise
    return made


def _direct(context: Context, record: InstanceRecord) -> None:
    """Let a machine's default routes go over the networks it has now; a container's do already."""
    if driver := guided(context.driver(record)):
        driver.direct(record.plan, context.networks.routes(record.id))


def _unplug(context: Context, record: InstanceRecord, network: str) -> None:
    driver = pluggable(context.driver(record))
    for use in record.plan.attachments if driver else ():
        if driver and use.network == network and use.device:
            driver.unplug(record.plan, use)


def _tell(context: Context, action: str, record: InstanceRecord, network: str, name: str) -> None:
    context.events.emit("network", action, network, name, container=record.id, type="bridge")
