"""One registry: its content, its repositories, its uploads; and how it is opened and tidied."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from trivet.registry.server import collect, retention
from trivet.registry.server.bucket import Bucket
from trivet.registry.server.metric import Metrics
from trivet.registry.server.policy import PolicyFile
from trivet.registry.server.repository import Repositories
from trivet.registry.server.upload import IDLE, Uploads
from trivet.registry.server.upstream import Upstreams
from trivet.registry.server.webhook import Webhooks
from trivet.store.content import ContentStore
from trivet.store.record import Records

log = logging.getLogger(__name__)


class Registry:
    """What the handlers work with; made by `opened`."""

    def __init__(self, content: ContentStore, records: Records, policy: PolicyFile) -> None:
        self.content = content
        self.repositories = Repositories(content, records)
        self.uploads = Uploads(content)
        self.policy = policy
        self.metrics = Metrics()
        self.webhooks = Webhooks(policy, self.metrics)
        self.upstreams = Upstreams(self.repositories, policy, self.metrics)

    async def quota(self, name: str) -> int | None:
        """Tell how many bytes of blobs a repository may have; None without a limit."""
        limit = (await asyncio.to_thread(self.policy.current)).limit_of(name)
        return limit.bytes() if limit else None

    async def tidy(self, every: float, grace: float) -> None:
        """Collect garbage and drop stale uploads, again and again, while requests go on."""
        while True:
            await asyncio.sleep(every)
            await self.uploads.expire(IDLE)
            try:
                policy = await asyncio.to_thread(self.policy.current)
                gone = await asyncio.to_thread(retention.expire, self.repositories, policy)
                done = await asyncio.to_thread(collect.collect, self.repositories, grace=grace)
            except Exception:
                log.exception("collecting garbage failed; it is tried again in %g s", every)
            else:
                self.metrics.add("expired_total", len(gone))
                self.metrics.add("collected_bytes_total", done.freed)
                if gone:
                    log.info("retention removed %s", ", ".join(gone[:20]) + (", ..." if len(gone) > 20 else ""))
                if done.digests:
                    log.info("collected %d blobs, %d bytes", len(done.digests), done.freed)


@asynccontextmanager
async def opened(
    root: Path, policy: PolicyFile, *, collect_every: float, grace: float, s3: str = ""
) -> AsyncIterator[Registry]:
    """Open the registry below `root`, tidy it while the block runs, and end its uploads.

    `s3` is the URL of a bucket that has the blobs.
    """
    content = Bucket(root / "content", s3) if s3 else ContentStore(root / "content")
    content.sweep()
    records = Records(root / "record.db")
    registry = Registry(content, records, policy)
    tidying = asyncio.create_task(registry.tidy(collect_every, grace))
    try:
        yield registry
    finally:
        tidying.cancel()
        await asyncio.gather(tidying, return_exceptions=True)
        await registry.upstreams.close()
        await registry.webhooks.close()
        await registry.uploads.close()
        records.close()
