"""Instances, as the doors see them: one thin method per use case, each under the instance's lock."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence

from trivet.base.error import Conflict, TrivetError
from trivet.base.identity import check_name
from trivet.client.schema import (
    Created,
    ExecRequest,
    ExitStatus,
    Instance,
    InstanceRequest,
    LevelName,
    PathStat,
    StatsSample,
    TakeoverRequest,
    TopRow,
)
from trivet.client.schema_machine import ObtainRequest
from trivet.client.schema_network import EndpointRequest, LinkRequest, PortRequest, RateRequest
from trivet.engine.image.model import ImageNotFound
from trivet.engine.image.progress import silent
from trivet.engine.instance import (
    connection,
    copy,
    create,
    log,
    measure,
    publishing,
    relevel,
    remove,
    start,
    stop,
    update,
    wait,
)
from trivet.engine.instance import exec as execution
from trivet.engine.instance import filter as filtering
from trivet.engine.instance.ahead import Ahead
from trivet.engine.instance.attachment import OTHER
from trivet.engine.instance.context import Context
from trivet.engine.instance.expectation import Expectation, disappoint
from trivet.engine.instance.line import Line
from trivet.engine.instance.model import InstanceRecord, view
from trivet.engine.instance.session import Sessions
from trivet.engine.instance.shipping import ships
from trivet.engine.instance.status import Word, check
from trivet.engine.instance.stream import Attach, Stream
from trivet.engine.instance.surroundings import Surroundings, surroundings
from trivet.engine.machine import image as machine_image
from trivet.engine.network.why import HOST, WORLD
from trivet.engine.snapshot import diff
from trivet.launch.frame import Type

SPARE = 64  # views of instances that are gone


class Instances:
    """All instances of one engine; `ref` is a name, an id or a unique prefix of one."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.sessions = Sessions(context)
        self.ahead = Ahead(context)
        self._views: dict[str, tuple[InstanceRecord, Instance]] = {}

    def key(self, ref: str) -> str:
        """Find an instance's id by name, id or prefix."""
        return self.context.table.find(ref).id

    def speaker(self, word: str) -> str:
        """Find the instance whose network a word means; host, world and addresses are themselves."""
        try:
            if word in (HOST, WORLD) or ipaddress.ip_address(word):
                return word
        except ValueError:
            pass
        record = self.context.table.find(word)
        if record.word not in (Word.RUNNING, Word.PAUSED):
            raise Conflict(f"instance {record.name} is not running", hint=f"trivet start {record.name}")
        first = record.plan.attachments[0].network if record.plan.attachments else ""
        return self.key(first.removeprefix(OTHER)) if first.startswith(OTHER) else record.id

    def named(self, name: str) -> str:
        """Find the id of the instance with exactly this name; "" when there is none."""
        record = self.context.table.by_name(name) if name else None
        return record.id if record else ""

    async def create(self, request: InstanceRequest, dry_run: bool = False) -> Created:
        """Create an instance, pulling its image first where the request says so."""
        await self._have_image(request)
        return await create.create(self.context, request, dry_run)

    async def run(self, request: InstanceRequest, streams: Attach | None) -> tuple[Created, Stream | None]:
        """Create an instance and start it, attached if `streams` says to what; what can't be started is gone again."""
        with self.ahead.busy():
            created, ready = await self.ahead.take(request) or (await self.create(request), None)
            try:
                async with self.context.locks.hold(created.id, "starting"):
                    stream = await start.start(self.context, created.id, streams, ready=ready)
            except Exception:
                if ready:
                    await ready.undo.aclose()
                with contextlib.suppress(TrivetError):
                    await self.remove(created.id, volumes=True)
                raise
        self.ahead.note(request, created.id)
        return created, stream

    async def _have_image(self, request: InstanceRequest) -> None:
        images = self.context.images
        if request.machine:
            if request.image:
                wish = ObtainRequest(reference=request.image)
                await machine_image.obtain(images, wish, self.context.cache_dir, silent)
            return
        if request.pull != "always":
            try:
                images.find(request.image)
                return
            except ImageNotFound:
                if request.pull == "never":
                    raise
        await images.pull(request.image, request.platform)

    async def select(self, *, every: bool, filters: dict[str, list[str]], size: bool) -> list[Instance]:
        """List running instances, or every one; newest first."""
        there = self.context.table.all()
        if len(self._views) > len(there) + SPARE:
            self._views = {record.id: self._views[record.id] for record in there if record.id in self._views}
        records = filtering.select(there, every, filters)
        return [await self._view(record, size) for record in reversed(records)]

    async def inspect(self, ref: str, size: bool = False) -> Instance:
        """Describe one instance."""
        return await self._view(self.context.table.find(ref), size)

    def aliases(self) -> dict[str, list[str]]:
        """List what instances are called by those who are linked to them, by id: /NAME/ALIAS."""
        found: dict[str, list[str]] = {}
        for record in self.context.table.all():
            for wish in record.request.links:
                found.setdefault(wish.instance, []).append(f"/{record.name}/{wish.alias}")
        return found

    def surroundings(self, ref: str) -> Surroundings:
        """Tell where the host has what an instance is shown."""
        return surroundings(self.context.table.find(ref))

    async def _view(self, record: InstanceRecord, size: bool) -> Instance:
        if not size:
            return self._seen(record)
        return view(record, await asyncio.to_thread(self.context.snapshotter(record).usage, record.id))

    def _seen(self, record: InstanceRecord) -> Instance:
        """View a record, which is frozen: lists mostly show what they showed before."""
        known = self._views.get(record.id)
        if known is None or known[0] is not record:
            known = self._views[record.id] = (record, view(record))
        return known[1]

    async def start(self, ref: str) -> None:
        """Start an instance; one that runs already is left alone."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "starting"):
            if self.context.table.find(key).word != Word.RUNNING:
                await self._start(key)

    async def _start(self, key: str) -> None:
        """Start, with everybody attached who waited for it. One that was to be removed at its end is, if it fails."""
        waiting = [each for each in self.context.expectations.pop(key, []) if each.open]
        try:
            stream = await start.start(self.context, key, waiting[0].streams if waiting else None)
            for each in waiting:
                each.stream.set_result(stream or await self.attach(key, each.streams, begin=False))
                stream = None
        except Exception as error:
            disappoint(waiting, error)
            if self.context.table.find(key).request.auto_remove:
                await remove.remove(self.context, key, volumes=True)
            raise

    def expect(self, ref: str, streams: Attach) -> Expectation:
        """Attach to an instance when it starts, from its first byte on."""
        expectation = Expectation(streams)
        self.context.expectations.setdefault(self.key(ref), []).append(expectation)
        return expectation

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        """Tell an instance's terminal how large it is."""
        stream = await self.attach(self.key(ref), Attach(stdout=False, stderr=False), begin=False)
        await stream.send(Type.RESIZE, rows.to_bytes(2, "little") + columns.to_bytes(2, "little"))
        stream.close()

    async def update(
        self,
        ref: str,
        *,
        publish: Sequence[PortRequest] = (),
        unpublish: Sequence[PortRequest] = (),
        rates: Sequence[RateRequest] = (),
        **fields: object,
    ) -> None:
        """Change an instance's ports, rates, and limits and restart policy (fields of `InstanceRequest`)."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "updating"):
            await update.update(self.context, key, fields, publish, unpublish, rates)

    async def take_over(self, ref: str, wish: TakeoverRequest) -> None:
        """Let a running instance publish what another one did, without a gap."""
        key, other = self.key(ref), self.key(wish.source)
        async with contextlib.AsyncExitStack() as stack:
            for each in sorted({key, other}):  # in one order, so that nobody waits for one another
                await stack.enter_async_context(self.context.locks.hold(each, "handing ports over"))
            await publishing.take_over(self.context, key, wish)

    async def relevel(self, ref: str, level: LevelName) -> float:
        """Change an instance's isolation level; seconds in which it didn't run."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "changing the level of"):
            return await relevel.relevel(self.context, key, level)

    async def connect(self, ref: str, wish: EndpointRequest) -> None:
        """Put an instance on a network more, running or not."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "connecting"):
            await connection.connect(self.context, key, wish)

    async def disconnect(self, ref: str, network: str) -> None:
        """Take an instance from a network, running or not."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "disconnecting"):
            await connection.disconnect(self.context, key, network)

    async def link(self, ref: str, links: Sequence[LinkRequest]) -> None:
        """Let an instance know others by names of its own, running or not."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "linking"):
            await connection.link(self.context, key, links)

    async def unlink(self, ref: str, alias: str) -> None:
        """Take such a name away."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "unlinking"):
            await connection.unlink(self.context, key, alias)

    async def attach(self, key: str, streams: Attach, begin: bool) -> Stream:
        """Attach to an instance that runs, or start it attached."""
        if begin:
            async with self.context.locks.hold(key, "starting"):
                stream = await start.start(self.context, key, streams)
                assert stream is not None
                return stream
        record = self.context.table.find(key)
        check("attach to", record.name, record.word)
        channel = await asyncio.to_thread(self.context.driver(record).attach, record.plan)
        stream = Line(channel)
        await stream.attach(stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr)
        return stream

    async def settled(self, key: str) -> None:
        """Wait until the end of an instance's run, which its monitor has announced, is recorded and acted upon."""
        if watch := self.context.watches.get(key):
            await asyncio.shield(watch.settled)

    async def stop(self, ref: str, grace: float | None = None, word: str = "") -> None:
        """Stop an instance."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "stopping"):
            await stop.stop(self.context, key, grace, word)

    async def restart(self, ref: str, grace: float | None = None, word: str = "") -> None:
        """Stop an instance if it runs, and start it."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "restarting"):
            await stop.stop(self.context, key, grace, word)
            await self._start(key)
        self.tell(key, "restart")

    def tell(self, key: str, action: str, **attributes: str) -> None:
        """Tell the world what somebody did with an instance that changes nothing."""
        if record := self.context.table.get(key):
            self.context.emit(action, record, **attributes)

    async def signal(self, key: str, number: int) -> None:
        """Pass a signal on from an attached client; one that comes too late is nobody's error."""
        with contextlib.suppress(TrivetError):
            await stop.kill(self.context, key, str(number))

    async def kill(self, ref: str, word: str) -> None:
        """Send an instance a signal; with SIGKILL, come back when it has ended."""
        key = self.key(ref)
        watch = self.context.watches.get(key)
        await stop.kill(self.context, key, word)
        if watch is not None and word.upper().removeprefix("SIG") in ("KILL", "9"):
            await asyncio.shield(watch.ended)

    async def pause(self, ref: str) -> None:
        """Freeze an instance."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "pausing"):
            await stop.pause(self.context, key)

    async def resume(self, ref: str) -> None:
        """Thaw an instance."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "resuming"):
            await stop.resume(self.context, key)

    async def rename(self, ref: str, name: str) -> None:
        """Give an instance another name. Raises `AlreadyExists` when it is taken."""
        before = self.context.table.find(ref)
        record = before.change(name=check_name("instance", name))
        self.context.table.put(record.id, record, name=name)
        await asyncio.to_thread(self.context.networks.rename, record.id, name)
        if ships(record):
            await asyncio.to_thread(self.context.shipping.announce)
        self.context.emit("rename", record, old_name=before.name)

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove an instance; with `force` stop it first, at once."""
        key = self.key(ref)
        async with self.context.locks.hold(key, "removing"):
            if force:
                await stop.stop(self.context, key, grace=0)
            await remove.remove(self.context, key, volumes=volumes)

    async def wait(self, ref: str, condition: str = "exited") -> ExitStatus:
        """Wait until an instance has ended, or for another of `wait.CONDITIONS`."""
        return await wait.wait(self.context, ref, condition)

    async def exec(self, ref: str, request: ExecRequest) -> Stream:
        """Run a further program in a running instance."""
        return await execution.execute(self.context, self.key(ref), request)

    async def logs(self, ref: str, wanted: log.Wanted) -> AsyncIterator[tuple[Type, bytes]]:
        """Read an instance's log. Raises `NoLog`."""
        log.check(self.context, self.key(ref))
        return log.follow(self.context, self.key(ref), wanted)

    def stats(self, ref: str, *, stream: bool) -> AsyncIterator[StatsSample]:
        """Measure a running instance."""
        return measure.samples(self.context, self.key(ref), stream=stream)

    async def all_stats(self) -> list[StatsSample]:
        """Measure all running instances, once."""

        async def one(key: str) -> StatsSample | None:
            try:
                return await anext(measure.samples(self.context, key, stream=False), None)
            except TrivetError:  # it ended meanwhile
                return None

        found = await asyncio.gather(*(one(key) for key in list(self.context.watches)))
        return [sample for sample in found if sample is not None]

    async def top(self, ref: str) -> list[TopRow]:
        """List a running instance's processes."""
        return await measure.top(self.context, self.key(ref))

    async def stat_path(self, ref: str, path: str) -> PathStat:
        """Look at a file inside an instance."""
        return await copy.stat(self.context, self.key(ref), path)

    def export(self, key: str, write: Callable[[bytes], object]) -> None:
        """Write an instance's whole root as a tar. Blocking; raises `NotReadable` at level vm."""
        diff.export(self.context.table.find(key).plan.root, write)

    async def changes(self, ref: str) -> list[diff.Change]:
        """List what an instance has changed in its root."""
        return await asyncio.to_thread(diff.compare, self.context.table.find(ref).plan.root)

    def read_archive(self, ref: str, path: str) -> AsyncIterator[bytes]:
        """Read files inside an instance as a tar."""
        return copy.read(self.context, self.key(ref), path)

    async def write_archive(self, ref: str, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Unpack a tar into a directory inside an instance."""
        await copy.write(self.context, self.key(ref), path, chunks)
