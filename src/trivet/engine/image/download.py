"""Downloading a blob: into the store, continued where an earlier download broke off, verified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial

from trivet.base.error import Corrupt
from trivet.engine.image.progress import Meter, Report
from trivet.oci import digest as digests
from trivet.oci.descriptor import Descriptor
from trivet.registry.client import RegistryClient
from trivet.store.content import Ingest
from trivet.store.partial import Partials


def nobody() -> None:
    """Tell nobody that it has begun."""


async def download(
    partials: Partials,
    registry: RegistryClient,
    repository: str,
    blob: Descriptor,
    report: Report,
    begun: Callable[[], None] = nobody,
) -> None:
    """Fetch a blob, going on where an earlier pull broke off; if the old part was bad, once more from the start.

    `begun` is called when it can be followed.
    """
    old = partials.size(blob.digest)
    meter = Meter(report, digests.short(blob.digest), blob.size)
    try:
        async with ingesting(partials.ingest(blob.digest, blob.size)) as ingest:
            begun()
            await registry.blob(repository, blob, ingest, partial(meter.count, "downloading"))
    except Corrupt:
        if not old:
            raise
        await download(partials, registry, repository, blob, report, begun)


@asynccontextmanager
async def ingesting(manager: AbstractContextManager[Ingest]) -> AsyncIterator[Ingest]:
    """Ingest without holding the event loop up while the disk syncs.

    However often and whenever the caller is cancelled, the ingest is left: who follows it waits for that.
    """
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        ingest = await asyncio.shield(entering)
    except asyncio.CancelledError as error:
        gone = error
        entering.add_done_callback(lambda done: done.exception() or manager.__exit__(type(gone), gone, None))
        raise
    try:
        yield ingest
    except BaseException as error:
        manager.__exit__(type(error), error, error.__traceback__)  # nothing is synced then
        raise
    await asyncio.shield(asyncio.to_thread(manager.__exit__, None, None, None))
