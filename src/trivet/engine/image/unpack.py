"""Unpacking an image while it arrives: each layer when its blob is here, several at a time, in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trivet.engine.image.commit import Draft
from trivet.engine.image.progress import Report, relay
from trivet.engine.snapshot.snapshotter import Gradual

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

WINDOW = 3  # layers being unpacked at a time


async def unpack(images: Images, image: Draft, blobs: Sequence[asyncio.Task[None]], report: Report) -> None:
    """Unpack all layers; each of `blobs` ends when a layer's blob is here. The first failure ends the others."""
    snapshotter = images.unpacks(image)
    if not isinstance(snapshotter, Gradual):
        return
    slots = asyncio.Semaphore(WINDOW)
    piles = [Draft(config=image.config, layers=image.layers[: index + 1]) for index in range(len(blobs))]

    async def one(index: int) -> None:
        await asyncio.wait([blobs[index]])
        blobs[index].result()
        async with slots:
            await asyncio.to_thread(snapshotter.unpack, piles[index], relay(report))

    tasks = [asyncio.create_task(one(index)) for index in range(len(blobs))]
    try:
        await asyncio.gather(*tasks)
        await asyncio.to_thread(snapshotter.prepare, image, relay(report))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
