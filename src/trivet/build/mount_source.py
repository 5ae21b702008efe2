"""What a RUN --mount shows: a copy of files, a directory that is kept between builds, memory, a secret, an agent.

Files are copied into a root of their own, which is thrown away after the step: nothing that the
command writes there reaches context or stage. A cache is shown as a whole and never looked into.
"""

from __future__ import annotations

import asyncio
import posixpath
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import msgspec

from trivet.base.thread import in_thread
from trivet.build import cachekey
from trivet.build.error import BuildError
from trivet.build.ignore import Ignore
from trivet.build.kept import Kept
from trivet.build.mount import RunMount
from trivet.build.origin import Files
from trivet.build.placement import Choice, Dating, Target, checksum, choose, place
from trivet.build.secret import agent_of, secret_of, write_secret
from trivet.build.selection import from_image
from trivet.build.session import Step
from trivet.build.state import State
from trivet.build.stub import add_target
from trivet.engine.image.commit import Draft, scratch
from trivet.isolation.plan import Mount
from trivet.oci import platform as platforms

_CONTENT = "/content"
_ALL = Ignore([])


class Source(msgspec.Struct, frozen=True):
    """A --mount, and the files that a bind, or a new cache, takes from."""

    mount: RunMount
    files: Files

    def describe(self, step: Step, state: State) -> list[object]:
        """Say what a step's result depends on: the files of a bind, not the content of a cache or a secret."""
        mount = self.mount
        if mount.kind in ("secret", "ssh"):
            return [mount.kind, mount.target, mount.id, mount.env, mount.mode, mount.uid, mount.gid]
        if mount.kind != "bind":
            return [mount.kind, mount.target, mount.id if mount.kind == "cache" else "", mount.size]
        if isinstance(self.files, Draft):
            content = f"{cachekey.chain(self.files.layers)} {mount.source}"
        else:
            chosen = choose(self.files, mount.source)
            content = checksum(place(chosen, Target(directory="", name=""), _ALL, Dating(step.session.when(state))))
        return [mount.kind, mount.target, content, mount.read_only]

    @property
    def base(self) -> str:
        """What a cache begins with, which is part of its name; "" for nothing."""
        if not self.mount.origin:
            return ""
        chain = cachekey.chain(self.files.layers) if isinstance(self.files, Draft) else self.mount.origin
        return f"{chain} {self.mount.source}"


class Shown(msgspec.Struct):
    """What a step sees because of its mounts."""

    mounts: list[Mount] = []
    env: dict[str, str] = {}


class Mounts:
    """The mounts of one step; `stub` holds their targets, to lie below all layers."""

    def __init__(self, step: Step, state: State, stub: Path) -> None:
        self._step = step
        self._session = step.session
        self._state = state
        self._stub = stub

    async def provide(self, sources: list[Source], cwd: str, undo: AsyncExitStack) -> Shown:
        """Make everything that is to be shown; `undo` takes it away."""
        locked = {
            Kept.name(each.mount, each.base)
            for each in sources
            if each.mount.kind == "cache" and each.mount.sharing == "locked"
        }
        for name in sorted(locked):  # everybody in the same order, or two steps could wait for one another
            await undo.enter_async_context(self._session.locks.setdefault(name, asyncio.Lock()))
        shown = Shown()
        for source in sources:
            path = await self._source(source, shown, undo)
            target = source.mount.target
            if target and (path or source.mount.kind == "tmpfs"):
                target = "/" + posixpath.normpath(posixpath.join("/", cwd, target)).lstrip("/")
                shown.mounts.append(self._mount(source.mount, target, path))
        return shown

    def _mount(self, mount: RunMount, target: str, path: Path | None) -> Mount:
        add_target(self._stub, target, is_file=path is not None and not path.is_dir())
        if path is None:
            return Mount(kind="tmpfs", target=target, size=mount.size)
        return Mount(kind="bind", source=str(path), target=target, read_only=mount.read_only, recursive=False)

    async def _source(self, source: Source, shown: Shown, undo: AsyncExitStack) -> Path | None:
        """Make what is bound to the target; None for nothing, or memory."""
        match source.mount.kind:
            case "bind":
                return await self._copy(source, undo)
            case "cache":
                return await self._cache(source, undo)
            case "secret":
                return await self._secret(source.mount, shown, undo)
            case "ssh":
                return await self._agent(source.mount, shown, undo)
        return None

    async def _cache(self, source: Source, undo: AsyncExitStack) -> Path:
        kept, mount = self._session.tools.cache.kept, source.mount
        async with AsyncExitStack() as done:
            begin = await self._beginning(source, done) if kept.is_new(mount, source.base) else None
            if begin is not None and not begin.is_dir():
                raise BuildError(f"--mount=type=cache begins with {mount.source}, which is no directory")
            return undo.enter_context(kept.use(mount, source.base, begin))

    async def _beginning(self, source: Source, done: AsyncExitStack) -> Path | None:
        """Make what a new cache begins with: that of an imported cache, or files, or nothing."""
        files = done.enter_context(ExitStack())
        for each in self._session.imports:
            found = await each.mount(Kept.name(source.mount, source.base), files)
            if found is not None:
                return found
        return await self._copy(source, done) if source.mount.origin else None

    async def _secret(self, mount: RunMount, shown: Shown, undo: AsyncExitStack) -> Path | None:
        content = await secret_of(self._session.caller, mount, self._session.request.secrets)
        if content is None:
            return None
        if mount.env:
            shown.env[mount.env] = content.decode("utf-8", "surrogateescape")
        if not mount.target:
            return None
        path = self._session.tools.offered.place(undo)
        write_secret(path, content, mount)
        return path

    async def _agent(self, mount: RunMount, shown: Shown, undo: AsyncExitStack) -> Path | None:
        path = self._session.tools.offered.place(undo)
        if not await agent_of(self._session.caller, mount, self._session.request.ssh, path, undo):
            return None
        shown.env.setdefault("SSH_AUTH_SOCK", mount.target)
        return path

    async def _copy(self, source: Source, undo: AsyncExitStack) -> Path:
        """Copy what a mount's source names into a root of its own."""
        step, spool, mount = self._step, self._session.spool, source.mount
        if isinstance(source.files, Draft):
            async with AsyncExitStack() as done:
                root, _ = await step.root(source.files, done)
                read = await in_thread(from_image, step, step.transfer(root), (mount.source,), mount.origin)
            latest = self._session.when(State(draft=source.files, scope=self._state.scope))
            found = [msgspec.structs.replace(choice, dated=True, latest=latest) for choice in read]
        else:
            found = choose(source.files, mount.source)
        choice = _only(found, mount)
        root, _ = await step.root(scratch(platforms.host()), undo)
        epoch = self._session.when(self._state)
        dating = Dating(epoch, epoch + 1 if self._state.keeps_times else None)
        placements = place([choice], Target(directory=_CONTENT, name="file"), _ALL, dating)
        await in_thread(step.transfer(root).write, _CONTENT, placements, spool)
        content = Path(root.upper) / _CONTENT.lstrip("/")
        return content if choice.node.kind == "directory" else content / "file"


def _only(choices: list[Choice], mount: RunMount) -> Choice:
    if len(choices) != 1:
        raise BuildError(f"--mount source {mount.source} names {len(choices)} files", hint="name one file or directory")
    return choices[0]
