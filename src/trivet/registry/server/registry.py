"""One registry: its content, its repositories, its uploads; and how it is opened and tidied."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from trivet.registry.server import collect
from trivet.registry.server.repository import Repositories
from trivet.registry.server.upload import IDLE, Uploads
from trivet.store.content import ContentStore
from trivet.store.record import Records

log = logging.getLogger(__name__)


class Registry:
    """What the handlers work with; made by `opened`."""

    def __init__(self, content: ContentStore, records: Records) -> None:
        self.content = content
        self.repositories = Repositories(content, records)
        self.uploads = Uploads(content)

    async def tidy(self, every: float, grace: float) -> None:
        """Collect garbage and drop stale uploads, again and again, while requests go on."""
        while True:
            await asyncio.sleep(every)
            await self.uploads.expire(IDLE)
            try:
                done = await asyncio.to_thread(collect.collect, self.repositories, grace=grace)
            except Exception:
                log.exception("collecting garbage failed; it is tried again in %g s", every)
            else:
                if done.digests:
                    log.info("collected %d blobs, %d bytes", len(done.digests), done.freed)


@asynccontextmanager
async def opened(root: Path, *, collect_every: float, grace: float) -> AsyncIterator[Registry]:
    """Open the registry below `root`, tidy it while the block runs, and end its uploads."""
    content = ContentStore(root / "content")
    content.sweep()
    records = Records(root / "record.db")
    registry = Registry(content, records)
    tidying = asyncio.create_task(registry.tidy(collect_every, grace))
    try:
        yield registry
    finally:
        tidying.cancel()
        await asyncio.gather(tidying, return_exceptions=True)
        await registry.uploads.close()
        records.close()
