"""Self-repair: what somebody else does to our bridges, links and rules is noticed, mended, and told.

    the kernel's news ──▶ does it concern us? ──▶ wait for calm ──▶ compare host and records ──▶ restore ──▶ tell

News only wakes; what is wrong is always found out by comparing, so our own changes, which are news too, cost a look and
no more. Who goes on undoing a repair wins for a while: there are never more than BURST repairs in PERIOD seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from trivet.base.error import TrivetError
from trivet.client.schema_host import Finding
from trivet.engine.network import repair
from trivet.engine.network.network import Networks
from trivet.kernel.news import Listener, News

log = logging.getLogger(__name__)

CALM = 0.2
LEISURE = 1.0
PATIENCE = 0.1
TIDY = 1.0
LONGEST = 2.0  # of waiting for calm
BURST, PERIOD = 3, 30.0

Tell = Callable[[Finding], None]


async def watch(networks: Networks, tell: Tell) -> None:
    """Watch and mend until cancelled; `tell` hears of each thing that was mended, or couldn't be."""
    loop = asyncio.get_running_loop()
    woken, urgent, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
    with Listener() as listener:

        def hear() -> None:
            deaf()
            news = list(listener.read())
            if concern(networks, news):
                woken.set()
                if concern(networks, [each for each in news if not each.element]):
                    urgent.set()
            if any(each.gone for each in news):
                gone.set()
            timers[:] = [loop.call_later(PATIENCE, listen)]  # a start alone is ten pieces of news

        def listen() -> None:
            for descriptor in listener.descriptors():
                loop.add_reader(descriptor, hear)

        def deaf() -> None:
            for descriptor in listener.descriptors():
                loop.remove_reader(descriptor)

        timers: list[asyncio.TimerHandle] = []
        listen()
        tidying = asyncio.create_task(_tidy(networks, gone))
        try:
            repairs: deque[float] = deque(maxlen=BURST)
            while True:
                await woken.wait()
                if not urgent.is_set():  # ports were closed, by us as a rule
                    await asyncio.sleep(LEISURE)
                await _calm(woken)
                urgent.clear()
                await _mend(networks, repairs, tell)
        finally:
            tidying.cancel()
            for timer in timers:
                timer.cancel()
            deaf()


def concern(networks: Networks, news: Sequence[News]) -> bool:
    """Tell whether some of the news may be of something that is ours."""
    if any(each.lost or each.table == networks.table for each in news if each.lost or each.table):
        return True
    if not (missing := {each.interface for each in news if each.gone or not each.up or not each.master}):
        return False
    dead = {each.interface for each in news if each.gone or not each.up}
    bridges = {record.interface for record in networks.ledger.networks() if record.interface}
    return not dead.isdisjoint(bridges) or any(
        each.device in missing - bridges for each in networks.ledger.endpoints() if each.device
    )


async def _calm(woken: asyncio.Event) -> None:
    """Wait until nothing more happens for a moment; changes come in bundles."""
    end = time.monotonic() + LONGEST
    while woken.is_set() and time.monotonic() < end:
        woken.clear()
        await asyncio.sleep(CALM)
    woken.clear()


async def _tidy(networks: Networks, gone: asyncio.Event) -> None:
    """Take out of the guard's sets what interfaces that are gone left there, once no more go."""
    while True:
        await gone.wait()
        await asyncio.sleep(TIDY)
        gone.clear()
        try:
            await asyncio.to_thread(networks.guard.tidy)
        except OSError as error:
            log.warning("cannot tidy up the table of who may send: %s", error)


async def _mend(networks: Networks, repairs: deque[float], tell: Tell) -> None:
    try:
        if not await asyncio.to_thread(repair.broken, networks):
            return
        if len(repairs) == BURST and (pause := repairs[0] + PERIOD - time.monotonic()) > 0:
            log.warning("something keeps undoing what is mended: the next repair is in %d s", pause)
            await asyncio.sleep(pause)
        repairs.append(time.monotonic())
        for finding in await asyncio.to_thread(repair.mend, networks):
            log.warning("%s: %s; %s", finding.object, finding.problem, "mended" if finding.repaired else "it stays so")
            tell(finding)
    except (TrivetError, OSError) as error:
        log.error("cannot mend the networks: %s", error)
