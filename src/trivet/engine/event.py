"""Events: what happened to which object, for `trivet events` and for whoever waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from trivet.base.clock import now_ns, rfc3339
from trivet.client.schema import Event

KEPT = 1024
BACKLOG = 4096


class Events:
    """Hands events to subscribers and keeps the last ones for replay. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._subscribers: dict[asyncio.Queue[Event], Callable[[Event], bool]] = {}

    def emit(
        self, kind: str, action: str, key: str, name: str, *, labels: dict[str, str] | None = None, **attributes: str
    ) -> None:
        """Record an event now. A subscriber that is BACKLOG events behind loses the newest."""
        time = now_ns()
        if self._kept and time <= self._kept[-1].time_ns:
            time = self._kept[-1].time_ns + 1
        event = Event(
            time=rfc3339(time),
            time_ns=time,
            kind=kind,
            action=action,
            id=key,
            name=name,
            attributes=attributes,
            labels=labels or {},
        )
        self._kept.append(event)
        for queue, wanted in self._subscribers.items():
            if not queue.full() and wanted(event):
                queue.put_nowait(event)

    async def follow(
        self, *, since: int = 0, until: int = 0, follow: bool = True, wanted: Callable[[Event], bool] = lambda _: True
    ) -> AsyncIterator[Event]:
        """Yield kept events from `since` (ns; 0: none kept), then live ones until `until` (ns; 0: for ever)."""
        queue: asyncio.Queue[Event] = asyncio.Queue(BACKLOG)
        self._subscribers[queue] = wanted
        try:
            for event in list(self._kept):
                if since and event.time_ns >= since and (not until or event.time_ns <= until) and wanted(event):
                    yield event
            while follow and (latest := await _next(queue, until)):
                if until and latest.time_ns > until:
                    return
                yield latest
        finally:
            del self._subscribers[queue]


async def _next(queue: asyncio.Queue[Event], until: int) -> Event | None:
    """Take the next event; None when the time is up and what came until then, perhaps to a slow reader, was taken."""
    with suppress(asyncio.QueueEmpty):
        return queue.get_nowait()
    timeout = (until - now_ns()) / 1e9 if until else None
    if timeout is not None and timeout <= 0:
        return None
    try:
        return await asyncio.wait_for(queue.get(), timeout)
    except TimeoutError:
        return None
