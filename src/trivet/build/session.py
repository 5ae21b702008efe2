"""One build: what it was asked for, where it works, and how a step that changes files is cached."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import msgspec

from trivet.base.error import Unsupported
from trivet.base.thread import in_thread
from trivet.build.cache import CacheEntry
from trivet.build.cache_import import Import
from trivet.build.caller import Caller
from trivet.build.graph import Graph
from trivet.build.ignore import Ignore
from trivet.build.spool import Spool
from trivet.build.state import State
from trivet.build.tool import PREFIX, Report, Tools
from trivet.build.transfer import Transfer
from trivet.build.tree import Tree
from trivet.client.schema import Progress
from trivet.client.schema_build import BuildRequest
from trivet.engine.image.commit import Draft, scratch
from trivet.engine.snapshot.diff import Written, settle
from trivet.isolation.plan import Root
from trivet.oci import platform as platforms
from trivet.store.lease import Lease


class NoOverlay(Unsupported):
    """An engine that copies images has no overlay to work in."""

    def __init__(self) -> None:
        super().__init__(
            "cannot build with the snapshotter copy: steps are made in overlays",
            hint="start the engine with --snapshotter overlay or erofs",
        )


class WorkDirectory:
    """A build's own directory, made when something is first put there: a cached build puts nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._made = False

    @property
    def path(self) -> Path:
        """Make it unless it is there."""
        with self._lock:
            if not self._made:
                self._path.mkdir(mode=0o700)
                (self._path / "root").mkdir(mode=0o700)
                self._made = True
        return self._path

    async def remove(self) -> None:
        """Remove it with all that is in it."""
        if self._made:
            await in_thread(shutil.rmtree, self._path, ignore_errors=True)


class Workplace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one build works, and what it was asked for.

    `undo` takes away at the end what is made on the way, `done` holds by name what is made once; `platform` is what
    the image is for ("" is this machine's).
    """

    tools: Tools
    request: BuildRequest
    report: Report
    caller: Caller
    undo: AsyncExitStack
    platform: str
    spool: Spool
    lease: Lease
    directory: WorkDirectory
    drafts: dict[str, Draft]
    locks: dict[str, asyncio.Lock]
    slots: asyncio.Semaphore
    done: dict[str, asyncio.Task[Any]] = {}
    pending: list[asyncio.Task[None]] = []

    @property
    def work(self) -> Path:
        """The directory that goes with the build."""
        return self.directory.path

    @property
    def network(self) -> str:
        """The network of RUN steps that ask for none."""
        return self.request.network or "bridge"

    def when(self, state: State, floor: int = 0) -> int:
        """Date a step: as the request says, else as its newest input that has a date of its own."""
        return self.request.timestamp if self.request.timestamp is not None else max(state.created, floor)

    @contextmanager
    def scratch_file(self) -> Iterator[BinaryIO]:
        """Open a file without a name, gone at the end."""
        with tempfile.TemporaryFile(dir=self.work) as file:
            yield cast(BinaryIO, file)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the steps that follow; the build doesn't end before."""
        task = asyncio.create_task(work)
        self.pending.append(task)
        self.undo.push_async_callback(asyncio.wait, [task])

    async def caught_up(self) -> None:
        """Wait for what is done beside the steps. Raises what went wrong with it."""
        pending = list(self.pending)
        self.pending.clear()
        if pending:
            await asyncio.wait(pending)
        for task in pending:
            task.result()

    def hold(self, draft: Draft) -> None:
        """Protect a draft's content."""
        self.lease.add(*(layer.digest for layer in draft.layers))


class Session(Workplace, frozen=True, kw_only=True):
    """A build that runs. `context` lacks what .dockerignore leaves out (`ignored`), `whole` has it.

    `steps` gathers the keys of all steps with their stages, `mounts` the names of the kept directories they were shown.
    """

    graph: Graph
    context: Tree
    whole: Tree
    ignored: Ignore
    stages: dict[int, asyncio.Task[State]] = {}
    steps: dict[str, int] = {}
    mounts: set[str] = set()
    imports: Sequence[Import] = ()

    async def stage(self, index: int) -> State:
        """Wait for a stage that was begun."""
        return await asyncio.shield(self.stages[index])


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction being carried out; `id` is how its progress is called, `title` what it says.

    With `fresh` the cache isn't asked.
    """

    session: Session
    id: str
    line: int
    title: str
    stage: int = 0
    fresh: bool = False

    def tell(self, outcome: str = "") -> None:
        """Say that the step begins, or how it ended."""
        status = f"{self.title} · {outcome}" if outcome else self.title
        self.session.report(Progress(id=self.id, status=status))

    def show(self, output: str) -> None:
        """Pass output of the step on."""
        if output:
            self.session.report(Progress(id=self.id, stream=output))

    async def cached(self, state: State, key: str, text: str) -> State | None:
        """Find the step's result in the cache and put it on top."""
        session = self.session
        if self.fresh:
            return None
        entry = session.tools.cache.find(key, session.lease) or await self._imported(state, key)
        if entry is None:
            return None
        session.steps[key] = self.stage
        self.tell("cached")
        return state.with_layer(entry.layer, text, entry.time)

    async def _imported(self, state: State, key: str) -> CacheEntry | None:
        """Look a step up in the caches of others; what is found is ours from then on."""
        for each in self.session.imports:
            found = await each.find(key, state.draft)
            if found is not None:
                return self.session.tools.cache.keep(key, state.draft.layers, found.layer, found.time)
        return None

    async def layered(
        self, state: State, keys: list[str], text: str, when: int, make: Make, *, apart: bool = False
    ) -> State:
        """Change files: `make` does it in a root over the state's, and what it wrote becomes a layer.

        No file in the layer is younger than `when`, and none is on disk, once the build is over: where the stage
        keeps times, the steps that follow see younger ones. With `apart` it sees nothing of the state's files.
        """
        tools, session = self.session.tools, self.session
        begin = time.monotonic()
        async with AsyncExitStack() as undo:
            root, name = await self.root(scratch(platforms.host()) if apart else state.draft, undo)
            await make(root, name)
            kept = f"{PREFIX}{secrets.token_hex(8)}"
            try:
                written, after = await in_thread(self._take, root, state, text, when, kept)
            except BaseException:
                session.drafts.pop(kept, None)
                raise
            session.later(self._keep(keys, state.draft, written, when, kept))
            session.later(undo.pop_all().aclose())
        session.steps.update(dict.fromkeys(keys, self.stage))
        self.tell(f"{time.monotonic() - begin:.1f} s")
        if written and state.keeps_times:
            top = Path(tools.snapshotter.lowers(after.draft)[0])
            session.undo.push_async_callback(in_thread, settle, top, when)
        return after

    def _take(self, root: Root, state: State, text: str, when: int, name: str) -> tuple[Written | None, State]:
        """Make a layer of what was written to a root, and keep the files as what it unpacks to; and the state with it.

        By its `name` it stays unpacked until the cache holds it.
        """
        tools, session = self.session.tools, self.session
        written = tools.images.written_layer(root, epoch=when, lease=session.lease)
        after = state.with_layer(written.layer if written else None, text, when)
        session.drafts[name] = after.draft  # before it is there: it can't be unpacked again until it is stored
        if written:
            if not state.keeps_times:
                settle(Path(root.upper), when)
            tools.snapshotter.adopt(root, state.draft, written.layer)
        return written, after

    def _keep(
        self, keys: list[str], below: Draft, written: Written | None, when: int, name: str
    ) -> Coroutine[Any, Any, None]:
        """Store a layer and remember the step, which the next one needn't wait for: the disk takes its time."""
        session = self.session

        async def keep() -> None:
            try:
                if written:
                    await in_thread(written.publish)
                for key in keys:
                    session.tools.cache.keep(key, below.layers, written.layer if written else None, when)
            finally:
                session.drafts.pop(name)

        return keep()

    async def root(self, draft: Draft, undo: AsyncExitStack) -> tuple[Root, str]:
        """Make a writable root over a draft, removed again by `undo`; also its name."""
        tools = self.session.tools
        name = f"{PREFIX}{secrets.token_hex(8)}"
        self.session.drafts[name] = draft
        undo.callback(self.session.drafts.pop, name)
        undo.push_async_callback(in_thread, tools.snapshotter.remove, name)
        root = await in_thread(tools.snapshotter.create, name, draft)
        if root.copied:
            raise NoOverlay
        return root, name

    def transfer(self, root: Root) -> Transfer:
        """Reach into a root."""
        return Transfer(root, self.session.work / "root")


class Make(Protocol):
    """What a step does to a root; `name` is unique among all builds."""

    async def __call__(self, root: Root, name: str) -> None:
        """Do it."""


"""Snapshots whose names begin so belong to builds."""
