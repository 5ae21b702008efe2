"""How fast an instance may get and send on its networks, running or not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from trivet.client.schema_network import EndpointRequest, RateRequest
from trivet.engine.instance.attachment import DEFAULT, OTHER, check_rate
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.network.model import NotConnected


async def change(context: Context, record: InstanceRecord, wishes: Sequence[RateRequest]) -> InstanceRecord:
    """Change the rates of networks that an instance is on; the caller records the result. Raises `NotConnected`."""
    networks = list(record.request.networks or [EndpointRequest(network=DEFAULT)])
    changed: list[EndpointRequest] = []
    for wish in wishes:
        name = context.networks.find(wish.network).name
        known = [each for each in networks if not each.network.startswith(OTHER)]
        before = next((each for each in known if context.networks.find(each.network).name == name), None)
        if before is None or record.request.isolation == "process":
            raise NotConnected(record.name, name)
        rates = {"rate_in": wish.rate_in, "rate_out": wish.rate_out}
        after = msgspec.structs.replace(before, **{key: rate for key, rate in rates.items() if rate is not None})
        check_rate(after, context.networks.find(name).driver)
        networks[networks.index(before)] = after
        changed.append(after)
    for each in changed if record.word in (Word.RUNNING, Word.PAUSED) else ():
        await asyncio.to_thread(context.networks.pace, record.id, each.network, each.rate_in, each.rate_out)
    return record.change(request=msgspec.structs.replace(record.request, networks=networks))
