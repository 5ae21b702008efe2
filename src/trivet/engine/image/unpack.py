"""Unpacking an image while it arrives: several layers at a time, in whatever order, each from its first bytes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from trivet.base.error import TrivetError
from trivet.engine.image.commit import Draft
from trivet.engine.image.progress import Report, relay
from trivet.engine.snapshot.snapshotter import Gradual

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

WINDOW = 3  # layers being unpacked at a time


class Coming(NamedTuple):
    """A layer's blob: the task that ends when it is here, and what is set when its first bytes can be read."""

    blob: asyncio.Task[None]
    begun: asyncio.Event


async def unpack(images: Images, image: Draft, layers: Sequence[Coming], report: Report) -> None:
    """Unpack all layers as they come. The first failure ends the others."""
    snapshotter = images.unpacks(image)
    if not isinstance(snapshotter, Gradual):
        return
    slots = asyncio.Semaphore(WINDOW)
    piles = [Draft(config=image.config, layers=image.layers[: index + 1]) for index in range(len(layers))]
    # Threads of its own: they wait for bytes, which the engine's threads have to write.
    pool = ThreadPoolExecutor(WINDOW, thread_name_prefix="unpack")

    async def one(pile: Draft, layer: Coming) -> None:
        await layer.begun.wait()
        async with slots:
            if not layer.blob.done():
                await _follow(pool, snapshotter, pile, layer.blob, report)
            layer.blob.result()
            await asyncio.get_running_loop().run_in_executor(pool, snapshotter.unpack, pile, relay(report))

    tasks = [asyncio.create_task(one(*each)) for each in zip(piles, layers, strict=True)]
    try:
        await asyncio.gather(*tasks)
        await asyncio.to_thread(snapshotter.prepare, image, relay(report))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pool.shutdown(wait=False)


async def _follow(
    pool: ThreadPoolExecutor, snapshotter: Gradual, pile: Draft, blob: asyncio.Task[None], report: Report
) -> None:
    """Unpack a layer that is still coming, and wait until it is here.

    What goes wrong with bytes that nobody has verified says nothing: the download tells, or the verified layer will.
    """
    tell, last = relay(report), list[tuple[str, str, int, int]]()

    def told(what: str, doing: str, done: int, total: int) -> None:
        last[:] = [(what, doing, done, total)]
        if blob.done():  # until then the download tells how far it is
            tell(*last[0])

    with suppress(TrivetError):
        await asyncio.get_running_loop().run_in_executor(pool, snapshotter.unpack, pile, told)
    await asyncio.wait([blob])
    if last:
        tell(*last[0])
