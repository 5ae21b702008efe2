"""Builds that a client has given an id: they can be cancelled, and their context may come by a request of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, BinaryIO

from aiohttp import web

from trivet.base.error import Cancelled, InvalidArgument, NotFound
from trivet.base.thread import in_thread

PATIENCE = 5.0  # seconds between a build and the upload it waits for
PREFIX = "upload-request:"
CHUNK = 1 << 20


class BuildCancelled(Cancelled):
    """A build that its client has cancelled."""

    def __init__(self) -> None:
        super().__init__("the build was cancelled by who started it")


class _Upload:
    """A request and a build that wait for one another, whichever comes first."""

    def __init__(self) -> None:
        self.request: asyncio.Future[web.Request] = asyncio.get_running_loop().create_future()
        self.taken = asyncio.Event()
        self.done = asyncio.Event()


class Jobs:
    """The builds that run, and the uploads that wait for theirs."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._uploads: dict[str, _Upload] = {}

    async def run(self, key: str, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        """Run a build so that `cancel` reaches it. Raises `BuildCancelled`."""
        task = asyncio.create_task(work)
        if key:
            self._running[key] = task
        try:
            return await task
        except asyncio.CancelledError:
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise
            raise BuildCancelled from None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if self._running.get(key) is task:
                del self._running[key]

    def cancel(self, key: str) -> None:
        """End a build; one that isn't there has ended."""
        if key in self._running:
            self._running[key].cancel()

    async def give(self, key: str, request: web.Request) -> None:
        """Let the build of this id read the request's body. Raises `NotFound` when none comes for it."""
        upload = self._uploads.setdefault(key, _Upload())
        upload.request.set_result(request)
        try:
            await asyncio.wait_for(upload.taken.wait(), PATIENCE)
        except TimeoutError:
            raise NotFound(f"no build {key[:64]} waits for this upload") from None
        finally:
            self._uploads.pop(key, None)
        await upload.done.wait()

    async def take(self, key: str, file: BinaryIO) -> None:
        """Write the upload for this id to `file`. Raises `InvalidArgument` when none comes."""
        upload = self._uploads.setdefault(key, _Upload())
        try:
            request = await asyncio.wait_for(upload.request, PATIENCE)
        except TimeoutError:
            self._uploads.pop(key, None)
            raise InvalidArgument("the build's context was never uploaded") from None
        upload.taken.set()
        try:
            async for chunk in request.content.iter_chunked(CHUNK):
                await in_thread(file.write, chunk)
        finally:
            upload.done.set()


JOBS = web.AppKey("jobs", Jobs)
