"""Instances made ahead: what was started twice within seconds is set up once more, for whoever asks for the same again.

A spare has everything an instance has, up to a program that waits for the last word, but for a record and a name. Who
asks for the same gets it: it is written down then, named, its ports are published, and its program let go. What is
nobody's after a while is undone; so it is when somebody else wants its address or its network, and at the engine's end.
Of a crash `sweep` finds what it left by the names of directories that no record knows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

import msgspec

from trivet.base.clock import now_ns
from trivet.base.error import TrivetError
from trivet.base.identity import check_name, new_name
from trivet.base.thread import in_thread
from trivet.client.schema import Created, InstanceRequest, RestartPolicy
from trivet.engine.image.model import ImageNotFound
from trivet.engine.instance import create
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.shared import FIELDS, OWN
from trivet.engine.instance.start import Ready, set_up
from trivet.engine.network.model import BRIDGE, NONE
from trivet.isolation import local
from trivet.shipper.option import SHIPPED

OFTEN = 10.0  # seconds within which the same is started again by those who start it often
SHAPES = 4  # that are kept ready: those started last
PAUSE = 0.03  # seconds after a start in which its program has the machine for itself
LONGEST = 15.0  # seconds that a spare waits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spare:
    """An instance of nobody. `making` undoes what a record would know of, `ready.undo` what only one that runs has."""

    shape: bytes
    record: InstanceRecord
    ready: Ready
    making: AsyncExitStack
    made: float


class Ahead:
    """The spares of one engine: `context.spares` of each request that was made twice lately."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._spares: list[Spare] = []
        self._seen: dict[bytes, float] = {}
        self._filling: set[bytes] = set()
        self._busy = 0
        self._keeper: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        context.networks.let_go = self._let_go

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Say that something is being started: nothing is made ahead meanwhile."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def take(self, request: InstanceRequest) -> tuple[Created, Ready] | None:
        """Give the instance that was made ahead for such a request, recorded by now; None when there is none.

        Raises what the request deserves: `AlreadyExists` for a name that is taken, what policy says of the image.
        """
        shape = _shape(request) if self._spares and self._fits(request) else b""
        while spare := next((each for each in self._spares if each.shape == shape), None):
            self._spares.remove(spare)
            if spare.record.image_id == self._image(request) and all(each.lives() for each in spare.ready.channels):
                return await self._give(spare, request)
            await self._drop(spare)
        return None

    def note(self, request: InstanceRequest, key: str) -> None:
        """Remember that an instance was started; have one made ahead if that happens often."""
        record = self._context.table.get(key) if self._context.spares and self._fits(request) else None
        if record is None or record.volumes:
            return
        shape, now = _shape(request), time.monotonic()
        before = self._seen.pop(shape, 0.0)
        self._seen[shape] = now
        if len(self._seen) > SHAPES:
            del self._seen[next(iter(self._seen))]
        if now - before < OFTEN and shape not in self._filling and self._lack(shape):
            self._filling.add(shape)
            self._context.background(asyncio.create_task(self._fill(shape, _anonymous(request))))

    def _lack(self, shape: bytes) -> int:
        return self._context.spares - sum(spare.shape == shape for spare in self._spares)

    async def watch(self) -> None:
        """Undo the spares of images that go, or whose name becomes another's; for as long as the engine runs."""
        async for _ in self._context.events.follow(wanted=lambda event: event.kind == "image"):
            await self._clear(lambda spare: self._image(spare.record.request) != spare.record.image_id)

    async def close(self) -> None:
        """Undo all spares, once nothing is made any more."""
        if self._keeper:
            self._keeper.cancel()
        await self._clear()

    async def _give(self, spare: Spare, request: InstanceRequest) -> tuple[Created, Ready]:
        context, record = self._context, spare.record
        try:
            name = check_name("instance", request.name) if request.name else new_name()
            record = record.change(
                name=name,
                request=msgspec.structs.replace(record.request, **{field: getattr(request, field) for field in FREE}),
                plan=msgspec.structs.replace(record.plan, name=name),
                created=now_ns(),
            )
            warnings = [word for gate in context.gates if (word := gate.advise(record))]
            context.table.insert(record.id, record, name=name)
        except BaseException:
            self._spares.append(spare)
            raise
        spare.making.pop_all()
        if record.plan.owner:
            context.owners.forget(record.plan.owner)
        context.emit("create", record)
        return Created(id=record.id, warnings=warnings), spare.ready

    def _fits(self, request: InstanceRequest) -> bool:
        """Tell whether a container for such a request could be made for nobody: it must need nothing of anybody."""
        return (
            request.isolation == "container"
            and request.pull != "always"
            and not (request.machine or request.mounts or request.secrets or request.devices or request.links)
            and not (request.privileged or request.publish_all or request.cgroup_parent)
            and request.log.driver not in SHIPPED
            and all(getattr(request, field) in OWN for field in FIELDS.values())
            and not any(":" in wish.network or wish.ip or wish.ip6 or wish.mac for wish in request.networks)
            and self._unfiltered(request)
        )

    def _unfiltered(self, request: InstanceRequest) -> bool:
        """Tell whether its networks are this host's alone, and nobody's labels decide what it may."""
        ledger, names = self._context.networks.ledger, [wish.network for wish in request.networks] or [BRIDGE]
        if names == [NONE]:
            return True
        plain = all(ledger.has(name) and ledger.network(name).driver == BRIDGE for name in names)
        return plain and not self._context.networks.policies.list()

    def _image(self, request: InstanceRequest) -> str:
        try:
            return self._context.images.find(request.image).id
        except ImageNotFound:
            return ""

    async def _fill(self, shape: bytes, request: InstanceRequest) -> None:
        try:
            while self._lack(shape) > 0:
                await asyncio.sleep(PAUSE)
                if not self._busy:
                    made = await self._make(shape, request)
                    self._spares.append(made)
            await self._clear(lambda spare: spare.shape not in self._seen)
            self._keeper = self._keeper or asyncio.create_task(self._expire())
        except (TrivetError, OSError) as error:  # the next start says what is wrong
            log.warning("cannot make an instance ahead: %s", error)
        finally:
            self._filling.discard(shape)

    async def _make(self, shape: bytes, request: InstanceRequest) -> Spare:
        driver = self._context.drivers[request.isolation]
        async with AsyncExitStack() as held, AsyncExitStack() as making, AsyncExitStack() as setting_up:
            blank = msgspec.structs.replace(request, ports=[])
            record, _ = await in_thread(create.make, self._context, blank, "", driver, making, held)
            making.push_async_callback(asyncio.to_thread, self._context.networks.release, record.id)
            record, channels = await in_thread(set_up, self._context, record, setting_up, _keep)
            for channel in channels:
                setting_up.callback(channel.close)
            self._context.stock.refill()
            record = record.change(request=msgspec.structs.replace(record.request, ports=request.ports))
            ready = Ready(channels, setting_up.pop_all())
            return Spare(shape, record, ready, making.pop_all(), time.monotonic())

    async def _drop(self, spare: Spare) -> None:
        await spare.ready.undo.aclose()
        await spare.making.aclose()

    async def _clear(self, bad: Callable[[Spare], bool] = lambda _: True) -> bool:
        """Undo spares; tells whether there were some."""
        gone = [spare for spare in self._spares if bad(spare)]
        for spare in gone:
            self._spares.remove(spare)
        for spare in gone:
            await self._drop(spare)
        return bool(gone)

    def _let_go(self) -> bool:
        """Undo all spares; from any thread but the loop's."""
        return asyncio.run_coroutine_threadsafe(self._clear(), self._loop).result()

    async def _expire(self) -> None:
        while self._spares:
            await asyncio.sleep(LONGEST / 4)
            await self._clear(lambda spare: time.monotonic() - spare.made > LONGEST)
        self._keeper = None


FREE = ("name", "labels", "restart", "health_on_failure", "stop_timeout", "pull")
"""Fields of a request that only the engine looks at, while the instance runs and afterwards."""

_BLANK = {"name": "", "labels": {}, "restart": RestartPolicy(), "health_on_failure": "none", "stop_timeout": 10}


def _anonymous(request: InstanceRequest) -> InstanceRequest:
    return msgspec.structs.replace(request, **_BLANK, pull="missing")


def _shape(request: InstanceRequest) -> bytes:
    return msgspec.json.encode(_anonymous(request))


def _keep(context: Context, record: InstanceRecord) -> None:
    """Write nothing down: nobody has it yet."""


def sweep(context: Context, known: set[str]) -> None:
    """Remove what an engine that was killed had made ahead: what runs is nobody's."""
    home = context.run / "i"
    short = {key[:20] for key in known}
    for place in home.iterdir() if home.is_dir() else ():
        if place.name not in short:
            local.remove(place, f"{context.cgroup}/{place.name}")
    for key in {endpoint.instance for endpoint in context.networks.ledger.endpoints()} - known:
        context.networks.release(key)
