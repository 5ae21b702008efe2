"""The flow log: what policies decided about beginning connections, as far back as is remembered."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator

from trivet.base.clock import now_ns, rfc3339
from trivet.client.schema_policy import Flow
from trivet.engine.network.network import Networks
from trivet.engine.network.policy import group
from trivet.kernel.nflog import Log, Logged

log = logging.getLogger(__name__)

KEPT = 4096
BACKLOG = 1024


class Flows:
    """The last flows, and those to come. Belongs to the event loop's thread."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._kept: deque[Flow] = deque(maxlen=KEPT)
        self._readers: set[asyncio.Queue[Flow]] = set()

    async def watch(self) -> None:
        """Read the log until cancelled; a kernel without it is told once, policies are kept all the same."""
        loop = asyncio.get_running_loop()
        try:
            reader = Log(group(self._networks.table))
        except OSError as error:
            log.warning("there is no log of flows: %s", error)
            return
        with reader:
            loop.add_reader(reader.descriptor, self._take, reader)
            try:
                await asyncio.Event().wait()
            finally:
                loop.remove_reader(reader.descriptor)

    async def follow(self, *, follow: bool) -> AsyncIterator[Flow]:
        """Yield what is remembered, and with `follow` what comes. Who is slow loses some."""
        queue: asyncio.Queue[Flow] = asyncio.Queue(BACKLOG)
        self._readers.add(queue)
        try:
            for flow in list(self._kept):
                yield flow
            while follow:
                yield await queue.get()
        finally:
            self._readers.discard(queue)

    def _take(self, reader: Log) -> None:
        names = {
            address: each.name
            for each in self._networks.ledger.endpoints()
            for address in (each.address, each.address6)
            if address
        }
        for each in reader.read():
            flow = _flow(each, names)
            self._kept.append(flow)
            for queue in self._readers:
                if not queue.full():
                    queue.put_nowait(flow)


def _flow(logged: Logged, names: dict[str, str]) -> Flow:
    direction, verdict, policy = (*logged.prefix.split(" ", 2), "", "", "")[:3]
    return Flow(
        time=rfc3339(now_ns()),
        verdict=verdict,
        direction=direction,
        policy=policy,
        source=logged.source,
        target=logged.target,
        source_name=names.get(logged.source, ""),
        target_name=names.get(logged.target, ""),
        protocol=logged.protocol,
        port=logged.port,
    )
