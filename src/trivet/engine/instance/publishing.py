"""Published ports of an instance that exists: more, fewer, or another's, running or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from trivet.base.error import Conflict, InvalidArgument
from trivet.client.schema import TakeoverRequest
from trivet.client.schema_network import Port, PortRequest
from trivet.engine.instance.attachment import OTHER
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.kernel.conntrack import streams

BEAT = 0.05


class NotPublished(Conflict):
    """A port that was to be taken back and isn't published."""

    def __init__(self, instance: str, port: PortRequest) -> None:
        host = f"{port.host_port}:" if port.host_port else ""
        super().__init__(
            f"instance {instance} does not publish port {host}{port.container_port}/{port.protocol}",
            hint=f"trivet port {instance}",
        )


async def change(
    context: Context, record: InstanceRecord, gone: Sequence[PortRequest], wanted: Sequence[PortRequest]
) -> InstanceRecord:
    """Take ports of an instance back and publish others, all or nothing; the caller records the result.

    Raises `NotPublished`, `PortTaken`, and `Conflict` where there is nothing to publish.
    """
    _refuse(record)
    kept = list(record.request.ports)
    for each in gone:
        left = [port for port in kept if not _means(each, port)]
        if left == kept and not any(_means(each, port) for port in record.ports):
            raise NotPublished(record.name, each)
        kept = left
    record = record.change(request=msgspec.structs.replace(record.request, ports=[*kept, *wanted]))
    if record.word not in (Word.RUNNING, Word.PAUSED):
        return record
    back = [port for port in record.ports if any(_means(each, port) for each in gone)]
    await asyncio.to_thread(context.networks.change_ports, record.id, back, wanted)
    return record.change(ports=tuple(context.networks.ports(record.id)))


async def take_over(context: Context, key: str, wish: TakeoverRequest) -> None:
    """Let an instance publish what another one did. The caller holds the locks of both. Raises as `change` does."""
    record, source = context.table.find(key), context.table.find(wish.source)
    if record.id == source.id:
        raise InvalidArgument(f"instance {record.name} cannot take over its own ports")
    for each in (record, source):
        _refuse(each)
        if each.word != Word.RUNNING:
            raise Conflict(f"cannot hand ports over from {source.name} to {record.name}: {each.name} is not running")
    gone = [port for port in source.ports if any(_means(each, port) for each in wish.ports)]
    wanted = [_same(each, gone) for each in wish.ports]
    old = {each.address for each in await asyncio.to_thread(context.networks.uses, source.id)}
    await asyncio.to_thread(context.networks.change_ports, record.id, gone, wanted, source.id)
    for one, left in (
        (record, wish.ports),
        (source, [each for each in source.request.ports if each not in wish.ports]),
    ):
        request = msgspec.structs.replace(one.request, ports=list(left))
        changed = one.change(request=request, ports=tuple(context.networks.ports(one.id)))
        context.table.update(one.id, changed)
        context.emit("update", changed)
    await _drained(gone, old, wish.drain)


def _refuse(record: InstanceRecord) -> None:
    """Say why an instance has no ports of its own, if it hasn't."""
    where = record.request.networks[0].network if record.request.networks else ""
    if where == "none" or where.startswith(OTHER):
        raise Conflict(f"ports of instance {record.name} cannot be published on network {where}")


def _means(wish: PortRequest, port: Port | PortRequest) -> bool:
    """Tell whether a wish, with 0 and "" for any, names a port."""
    return (
        (wish.container_port, wish.protocol) == (port.container_port, port.protocol)
        and wish.may_be(port.host_port)
        and wish.host_address in ("", port.host_address)
    )


def _same(wish: PortRequest, given: Sequence[Port]) -> PortRequest:
    """Keep the number of a free port that was chosen for the predecessor."""
    if wish.host_port and not wish.last:
        return wish
    known = next((port.host_port for port in given if _means(wish, port)), 0)
    return msgspec.structs.replace(wish, host_port=known, last=0) if known else wish


async def _drained(ports: Sequence[Port], addresses: set[str], limit: float) -> None:
    """Wait until connections through `ports` to the old end are over, or the time is."""
    end = time.monotonic() + limit
    numbers = {port.host_port for port in ports if port.protocol == "tcp"}
    addresses = addresses - {""}
    while numbers and addresses and time.monotonic() < end:
        if not any([await asyncio.to_thread(streams, number, addresses) for number in numbers]):
            return
        await asyncio.sleep(BEAT)
