"""What `FROM`, `COPY --from` and `RUN --mount from=` name: the context, a named context, a stage, an image."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from trivet.base.error import NotFound, TrivetError
from trivet.base.thread import in_thread
from trivet.build import remote
from trivet.build.caller import Ask
from trivet.build.error import BuildError
from trivet.build.graph import Stage
from trivet.build.instruction import Instruction
from trivet.build.session import Session
from trivet.build.tree import Tree
from trivet.engine.image.commit import Draft
from trivet.engine.image.model import WrongPlatform
from trivet.engine.snapshot.stream import decompressed

Files = Draft | Tree
"""Where files come from: an image in the making, or a tree in memory."""

T = TypeVar("T")
IMAGE, LAYOUT, LOCAL = "docker-image://", "oci-layout://", "local:"


async def origin_of(session: Session, stage: Stage, each: Instruction, name: str) -> Files:
    """Find what `from` names; "" is the context."""
    if not name:
        return session.context
    named = session.request.contexts.get(name.lower())
    if named is not None:
        return await named_context(session, name.lower(), named)
    found = session.graph.source(stage, each, name)
    if found is not None:
        return (await session.stage(found.index)).draft
    try:
        return await image_draft(session, name, session.platform)
    except TrivetError as error:
        if not set(name) & set("/:@."):
            error.hint = f"no stage and no --build-context is called {name}, so it was taken for an image"
        raise


async def named_context(session: Session, name: str, value: str) -> Files:
    """Get what `--build-context NAME=VALUE` gives, once in a build."""
    return await once(session, f"context {name}", lambda: _named(session, name, value))


async def _named(session: Session, name: str, value: str) -> Files:
    if value.startswith(IMAGE):
        return await image_draft(session, value.removeprefix(IMAGE), session.platform)
    if remote.is_remote(value):
        return await remote.context(session, value)
    with session.scratch_file() as file:
        line, _ = await session.caller.ask(Ask.CONTEXT, name)
        try:
            while data := await line.reader.read(remote.PIECE):
                await in_thread(file.write, data)
        finally:
            line.close()
        file.seek(0)
        if value.startswith(LAYOUT):
            return await in_thread(_loaded, session, name, file)
        what = f"the build context {name}"
        return await in_thread(session.spool.take, decompressed(file, subject=what), what, anonymous=True)


def _loaded(session: Session, name: str, file: Any) -> Draft:
    images = session.tools.images
    found = images.load(file)
    if len(found) != 1:
        raise BuildError(f"the OCI layout of context {name} holds {len(found)} images", hint="name one: PATH:TAG")
    draft = images.draft(found[0])
    session.hold(draft)
    return draft


async def image_draft(session: Session, reference: str, platform: str) -> Draft:
    """Begin with an image, fetched if it isn't here, or is for another platform, or --pull asks for it."""
    return await once(session, f"image {reference} {platform}", lambda: _image(session, reference, platform))


async def _image(session: Session, reference: str, platform: str) -> Draft:
    images = session.tools.images
    try:
        if session.request.pull:
            await images.pull(reference, platform, session.report)
        images.usable(reference)
        draft = images.draft(reference, platform)
    except (NotFound, WrongPlatform):
        if session.request.pull:
            raise
        await images.pull(reference, platform, session.report)
        images.usable(reference)
        draft = images.draft(reference, platform)
    session.hold(draft)
    return draft


async def once(session: Session, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do something once in a build, however many stages want it at the same time."""
    task = session.done.get(key)
    if task is None:
        task = session.done[key] = asyncio.create_task(work())
        session.undo.push_async_callback(_ended, task)
    return await asyncio.shield(task)


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
