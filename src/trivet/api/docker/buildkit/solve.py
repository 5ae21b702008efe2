"""A build that buildx has started: what it tells, to whoever asks, and what it is to make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from trivet.api.docker.buildkit.control_message import Return
from trivet.api.docker.buildkit.message import Trace


class Job:
    """One build, and what its client has returned."""

    def __init__(self, session: str) -> None:
        """`session` is the client's, who can be asked for files."""
        self.session = session
        self.returned: asyncio.Future[Return] = asyncio.get_running_loop().create_future()
        self._told: asyncio.Queue[Trace | None] = asyncio.Queue()

    def tell(self, trace: Trace) -> None:
        """Tell who follows the build; what was told before somebody does isn't lost."""
        self._told.put_nowait(trace)

    async def follow(self) -> AsyncIterator[Trace]:
        """Give what is told, to the end of the build."""
        while (trace := await self._told.get()) is not None:
            yield trace
        self._told.put_nowait(None)  # for who else follows

    def close(self) -> None:
        """Let who follows go."""
        self._told.put_nowait(None)
        self.returned.cancel()
