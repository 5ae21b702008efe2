"""Unpacking an image while it arrives: several layers at a time, in whatever order, each from its first bytes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from trivet.base.error import TrivetError, Unavailable
from trivet.engine.image.commit import Draft
from trivet.engine.image.progress import Report, relay
from trivet.engine.snapshot.snapshotter import Gradual
from trivet.store.growing import Passage

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

WINDOW = 3  # layers being unpacked at a time


class Coming:
    """A layer's blob on its way: the task that ends when it is here, and what is set when its first bytes can be read.

    Of one that passes through, `passage` is what can be read; `followed` is set when nobody reads more of it.
    """

    def __init__(self) -> None:
        self.blob: asyncio.Task[None]
        self.begun = asyncio.Event()
        self.passage: Passage | None = None
        self.followed = asyncio.Event()

    def pass_through(self, passage: Passage) -> None:
        """Let it be read by who unpacks it, and by nobody else."""
        self.passage = passage
        self.begun.set()


async def nothing(digest: str) -> None:
    """Do nothing about a layer that is unpacked."""


async def unpack(
    images: Images,
    image: Draft,
    layers: Sequence[Coming],
    report: Report,
    done: Callable[[str], Awaitable[None]] = nothing,
) -> None:
    """Unpack all layers as they come, and call `done` for each. The first failure ends the others."""
    snapshotter = images.unpacks(image)
    if not isinstance(snapshotter, Gradual):
        return
    slots = asyncio.Semaphore(WINDOW)
    piles = [Draft(config=image.config, layers=image.layers[: index + 1]) for index in range(len(layers))]
    # Threads of its own: they wait for bytes, which the engine's threads have to write.
    pool = ThreadPoolExecutor(WINDOW, thread_name_prefix="unpack")

    async def one(pile: Draft, layer: Coming) -> None:
        await layer.begun.wait()
        failure = None
        async with slots:
            if not layer.blob.done():
                failure = await _follow(images, pool, snapshotter, pile, layer, report)
            layer.blob.result()
            if layer.passage and failure and not isinstance(failure, Unavailable):
                raise failure  # the blob was what it should be
            await asyncio.get_running_loop().run_in_executor(pool, snapshotter.unpack, pile, relay(report))
        await done(pile.layers[-1].digest)

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
    images: Images, pool: ThreadPoolExecutor, snapshotter: Gradual, pile: Draft, layer: Coming, report: Report
) -> TrivetError | None:
    """Unpack a layer that is still coming, and wait until it is here; return what went wrong.

    With bytes that nobody has verified that says nothing: the download tells, or the verified layer will.
    """
    blob, failure = layer.blob, None
    tell, last = relay(report), list[tuple[str, str, int, int]]()

    def told(what: str, doing: str, done: int, total: int) -> None:
        last[:] = [(what, doing, done, total)]
        if blob.done():  # until then the download tells how far it is
            tell(*last[0])

    def work() -> None:
        passage, digest = layer.passage, pile.layers[-1].digest
        with passage.open() if passage else images.content.follow(digest, bring=False) as source:
            snapshotter.unpack(pile, told, source)

    try:
        await asyncio.get_running_loop().run_in_executor(pool, work)
    except TrivetError as error:
        failure = error
    finally:
        if layer.passage:
            layer.passage.leave()
        layer.followed.set()
    await asyncio.wait([blob])
    if last:
        tell(*last[0])
    return failure
