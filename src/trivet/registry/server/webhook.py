"""Telling others what happened: the `[[webhook]]` tables of the configuration.

    [[webhook]]
    url = "https://ci.example/hook"
    events = ["push", "delete"]      also "pull"
    repository = ["team/**"]
    secret = "/etc/registry/hook.key"

The body is the envelope of the distribution project's notifications. With a secret, the header
`X-Trivet-Signature: sha256=HEX` is the HMAC of the body. What isn't taken with a 2xx is sent again, a few
times; each address has a queue of its own, and what doesn't fit in, or is under way when the process ends, is lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import uuid
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec

from trivet.registry.server.metric import Metrics
from trivet.registry.server.policy import PolicyFile, Webhook
from trivet.registry.server.right import fits

log = logging.getLogger(__name__)

QUEUE = 1000
ATTEMPTS = 6
PAUSE = 1.0  # seconds before the second attempt; doubled each time
PATIENCE = 10.0
EVENTS = "application/vnd.docker.distribution.events.v1+json"


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done to a repository."""

    action: str
    repository: str
    digest: str = ""
    tag: str = ""
    media_type: str = ""
    size: int = 0
    user: str = ""

    def envelope(self) -> bytes:
        """Spell it as the distribution project does."""
        target: dict[str, str | int] = {"repository": self.repository, "digest": self.digest, "tag": self.tag}
        target |= {"mediaType": self.media_type, "size": self.size}
        event = {
            "id": str(uuid.uuid4()),
            "timestamp": datetime.now(UTC).isoformat(),
            "action": self.action,
            "target": {key: value for key, value in target.items() if value},
            "actor": {"name": self.user},
        }
        return msgspec.json.encode({"events": [event]})


class Webhooks:
    """Delivers events. `close` it."""

    def __init__(self, policy: PolicyFile, metrics: Metrics) -> None:
        self._policy = policy
        self._metrics = metrics
        self._queues: dict[str, asyncio.Queue[tuple[Webhook, bytes]]] = {}
        self._workers: list[asyncio.Task[None]] = []

    async def tell(self, happened: Happened) -> None:
        """Put an event into the queues of those who want to know."""
        hooks = (await asyncio.to_thread(self._policy.current)).webhook
        wanted = [
            each for each in hooks if happened.action in each.events and fits(each.repository, happened.repository)
        ]
        body = happened.envelope() if wanted else b""
        for hook in wanted:
            try:
                self._queue(hook.url).put_nowait((hook, body))
            except asyncio.QueueFull:
                self._metrics.add("webhook_deliveries_total", outcome="dropped")

    def _queue(self, url: str) -> asyncio.Queue[tuple[Webhook, bytes]]:
        if url not in self._queues:
            queue = self._queues[url] = asyncio.Queue(QUEUE)
            self._workers.append(asyncio.create_task(self._work(queue)))
        return self._queues[url]

    async def _work(self, queue: asyncio.Queue[tuple[Webhook, bytes]]) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE), trust_env=True) as session:
            while True:
                hook, body = await queue.get()
                try:
                    outcome = await self._deliver(session, hook, body)
                except Exception:
                    log.exception("the webhook %s cannot be called", hook.url)
                    outcome = "failed"
                self._metrics.add("webhook_deliveries_total", outcome=outcome)

    async def _deliver(self, session: aiohttp.ClientSession, hook: Webhook, body: bytes) -> str:
        headers = {"Content-Type": EVENTS}
        if hook.secret:
            key = (await asyncio.to_thread(Path(hook.secret).read_bytes)).strip()
            headers["X-Trivet-Signature"] = "sha256=" + hmac.digest(key, body, hashlib.sha256).hex()
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                async with session.post(hook.url, data=body, headers=headers, allow_redirects=False) as answer:
                    if 200 <= answer.status < 300:
                        return "delivered"
                    problem = f"status {answer.status}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = str(error) or type(error).__name__
        log.warning("the webhook %s did not take an event: %s", hook.url, problem)
        return "failed"

    async def close(self) -> None:
        """Stop delivering."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
