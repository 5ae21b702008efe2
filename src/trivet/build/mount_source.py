"""What a RUN --mount shows: a copy of files, a directory that is kept between builds, or memory.

Files are copied into a root of their own, which is thrown away after the step: nothing that the
command writes there reaches context or stage. A cache is shown as a whole and never looked into.
"""

from __future__ import annotations

import asyncio
import posixpath
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from trivet.build import cachekey
from trivet.build.error import BuildError
from trivet.build.ignore import Ignore
from trivet.build.kept import Kept
from trivet.build.mount import RunMount
from trivet.build.placement import Choice, Target, checksum, choose, place
from trivet.build.selection import from_image
from trivet.build.session import Step
from trivet.build.stub import add_target
from trivet.build.thread import in_thread
from trivet.engine.image.commit import Draft, scratch
from trivet.isolation.plan import Mount
from trivet.oci import platform as platforms

_CONTENT = "/content"


class Source(msgspec.Struct, frozen=True):
    """A --mount, and the image that a bind with `from` takes its files of."""

    mount: RunMount
    draft: Draft | None

    def describe(self, step: Step) -> list[object]:
        """Say what a step's result depends on: the files of a bind, not the content of a cache."""
        mount = self.mount
        if mount.kind != "bind":
            return [mount.kind, mount.target, mount.id if mount.kind == "cache" else "", mount.size]
        if self.draft is not None:
            content = f"{cachekey.chain(self.draft.layers)} {mount.source}"
        else:
            content = checksum(place(choose(step.session.context, mount.source), Target(directory="", name=""), _ALL))
        return [mount.kind, mount.target, content, mount.read_only]


_ALL = Ignore([])


class Mounts:
    """The mounts of one step; `stub` holds their targets, to lie below all layers."""

    def __init__(self, step: Step, stub: Path) -> None:
        self._step = step
        self._stub = stub

    async def provide(self, sources: list[Source], cwd: str, undo: AsyncExitStack) -> tuple[Mount, ...]:
        """Make everything that is to be shown; `undo` takes it away."""
        caches = [source.mount for source in sources if source.mount.kind == "cache"]
        locked = {Kept.name(cache) for cache in caches if cache.sharing != "shared"}
        for name in sorted(locked):  # everybody in the same order, or two steps could wait for one another
            await undo.enter_async_context(self._step.session.locks.setdefault(name, asyncio.Lock()))
        return tuple([await self._provide(source, cwd, undo) for source in sources])

    async def _provide(self, source: Source, cwd: str, undo: AsyncExitStack) -> Mount:
        mount = source.mount
        target = "/" + posixpath.normpath(posixpath.join("/", cwd, mount.target)).lstrip("/")
        if mount.kind == "tmpfs":
            add_target(self._stub, target)
            return Mount(kind="tmpfs", target=target, size=mount.size)
        if mount.kind == "cache":
            path = undo.enter_context(self._step.session.tools.cache.kept.use(mount))
        else:
            path = await self._copy(source, undo)
        add_target(self._stub, target, is_file=path.is_file())
        return Mount(kind="bind", source=str(path), target=target, read_only=mount.read_only, recursive=False)

    async def _copy(self, source: Source, undo: AsyncExitStack) -> Path:
        step, spool = self._step, self._step.session.spool
        if source.draft is None:
            choice = _only(choose(step.session.context, source.mount.source), source.mount)
        else:
            async with AsyncExitStack() as done:
                root, _ = await step.root(source.draft, done)
                wanted = (source.mount.source,)
                found = await in_thread(from_image, step, step.transfer(root), wanted, source.mount.origin)
                choice = _only(found, source.mount)
        root, _ = await step.root(scratch(platforms.host()), undo)
        placements = place([choice], Target(directory=_CONTENT, name="file"), _ALL)
        await in_thread(step.transfer(root).write, _CONTENT, placements, spool)
        content = Path(root.upper) / _CONTENT.lstrip("/")
        return content if choice.node.kind == "directory" else content / "file"


def _only(choices: list[Choice], mount: RunMount) -> Choice:
    if len(choices) != 1:
        raise BuildError(f"--mount source {mount.source} names {len(choices)} files", hint="name one file or directory")
    return choices[0]
