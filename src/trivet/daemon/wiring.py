"""The only file that knows every package: builds one engine from its settings."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
from aiohttp import web

from trivet.api.docker import application as docker
from trivet.api.native import application as native
from trivet.base.error import Conflict
from trivet.base.identity import new_id
from trivet.build.build import Builder
from trivet.build.cache import Cache
from trivet.build.kept import Kept
from trivet.build.secret import Offered
from trivet.build.tool import Tools
from trivet.client.schema_host import Finding
from trivet.daemon.settings import DEFAULT_ROOT, Settings
from trivet.engine.capacity.broker import Broker
from trivet.engine.engine import Engine
from trivet.engine.event import Events
from trivet.engine.image.image import Images
from trivet.engine.instance import staging
from trivet.engine.instance.ahead import sweep
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.owner import Owners
from trivet.engine.instance.reconcile import reconcile, restart
from trivet.engine.instance.shipping import Shipping
from trivet.engine.instance.steward import steward
from trivet.engine.instance.stock import Stock
from trivet.engine.machine import backup, twin
from trivet.engine.network import vigil
from trivet.engine.network.fleet import Fleet
from trivet.engine.network.model import DEFAULT_ENGINE
from trivet.engine.network.network import Networks
from trivet.engine.secret import Secrets
from trivet.engine.snapshot.disk import DiskSnapshotter
from trivet.engine.snapshot.drive import DriveSnapshotter
from trivet.engine.snapshot.layer import Kind
from trivet.engine.snapshot.overlay import OverlaySnapshotter
from trivet.engine.snapshot.snapshotter import Snapshotter
from trivet.engine.volume.snapshot import Snapshots
from trivet.engine.volume.volume import Volumes
from trivet.isolation import standby
from trivet.isolation.container import ContainerDriver
from trivet.isolation.driver import Forking
from trivet.isolation.process import ProcessDriver
from trivet.isolation.system import SystemDriver
from trivet.isolation.vm import VmDriver
from trivet.kernel.cgroup import Group, detect
from trivet.launch.spawn import launcher_descriptor
from trivet.store.content import ContentStore
from trivet.store.lease import Leases
from trivet.store.record import Records


class Identity(msgspec.Struct, frozen=True):
    """An engine's own id, made once per root directory."""

    id: str


class Doors(NamedTuple):
    """The engine's two dialects."""

    native: web.Application
    docker: web.Application


@asynccontextmanager
async def wire(settings: Settings) -> AsyncIterator[Doors]:
    """Build the engine, make records and running instances agree, and hand out the doors.

    What runs when the block ends goes on running.
    """
    launcher_descriptor()  # now, so that an upgrade of the files can't mix two versions in one engine
    records = Records(settings.root / "record.db")
    context = await asyncio.to_thread(_context, settings, records)
    context.images.sources.loop = asyncio.get_running_loop()
    await asyncio.to_thread(context.images.recover)
    for snapshotter in context.snapshotters.values():
        await asyncio.to_thread(snapshotter.sweep)
    if settings.snapshotter == Kind.EROFS:
        await asyncio.to_thread(context.overlay.layers.probe)
    await asyncio.to_thread(context.overlay.show_all)
    spool = settings.root / "tmp"
    spool.mkdir(mode=0o700, exist_ok=True)
    builder = _builder(settings, context)
    await asyncio.to_thread(builder.cleanup)
    broker = Broker(context, settings.budget, settings.root / "capacity.log")
    engine = Engine(context, identity(records), spool, broker)
    await asyncio.to_thread(context.networks.ensure_default)
    await asyncio.to_thread(standby.sweep, settings.run_dir / "i", context.cgroup)
    again = await reconcile(context)
    await asyncio.to_thread(context.images.sweep)  # an engine that died may have been at it
    await asyncio.to_thread(backup.go_on, context.table.all())
    await asyncio.to_thread(twin.give_up, context)
    engine.machines.filling.go_on(context.table.all())
    fleet = _fleet(settings, context, identity(records))
    if fleet:
        await asyncio.to_thread(fleet.look)
    await asyncio.to_thread(context.networks.restore, list(context.watches))
    await asyncio.to_thread(context.shipping.announce)
    if fleet:
        fleet.start()
    context.gates.append(broker)
    ahead = engine.instances.ahead
    tasks = tuple(asyncio.create_task(work) for work in (steward(context), broker.run(), ahead.watch()))
    context.background(asyncio.create_task(engine.flows.watch()))
    context.background(asyncio.create_task(vigil.watch(context.networks, lambda finding: _tell(context, finding))))
    restart(context, again)
    try:
        yield Doors(native.application(engine, builder), docker.application(engine, builder))
    finally:
        if fleet:
            await asyncio.to_thread(fleet.leave)
        # First of all: who accompanies an instance would take the end of our connection for the end of the instance.
        for left in (*tasks, *context.tasks):
            left.cancel()
        await asyncio.gather(*tasks, *context.tasks, return_exceptions=True)
        await ahead.close()
        await broker.let_go()
        for watch in context.watches.values():
            watch.close()
        context.networks.nameserver.leave()
        context.networks.carrier.leave()
        context.shipping.leave()
        await asyncio.to_thread(context.stock.close)
        for driver in context.drivers.values():
            if isinstance(driver, Forking):
                await asyncio.to_thread(driver.leave)
        records.close()


def _tell(context: Context, finding: Finding) -> None:
    outcome = "mended" if finding.repaired else "not mended"
    context.events.emit("network", "repair", finding.object, finding.object, problem=finding.problem, outcome=outcome)


def _context(settings: Settings, records: Records) -> Context:
    content = ContentStore(settings.root / "content")
    overlay = OverlaySnapshotter(settings.root / "snapshot" / "overlay", content, kind=settings.snapshotter)
    drive = DriveSnapshotter(settings.root / "snapshot" / "drive", overlay)
    disks = DiskSnapshotter(settings.root / "snapshot" / "disk")
    snapshotters: dict[str, Snapshotter] = {"mount": overlay, "drive": drive}
    images = Images(content, records, snapshotters, Leases(records), settings.policy, settings.layer_blobs)
    volumes = Volumes(records, settings.root / "volume")
    key = identity(records)
    table = records.table("instance", InstanceRecord)
    owners = Owners(lambda: (record.plan.owner for record in table.all()), int(key[:8], 16))
    context = Context(
        root=settings.root,
        run=settings.run_dir,
        cgroup=f"trivet/{key[:8]}",
        records=records,
        table=table,
        owners=owners,
        stock=Stock(owners, settings.run_dir / "spare"),
        machine=SystemDriver(settings.cache_dir),
        drivers={
            "process": ProcessDriver(),
            "container": ContainerDriver(),
            "vm": VmDriver(settings.cache_dir, settings.spares),
        },
        overlay=overlay,
        disks=disks,
        cache_dir=settings.cache_dir,
        snapshotters={**snapshotters, "disk": disks},
        images=images,
        networks=Networks(records, DEFAULT_ENGINE if settings.root == DEFAULT_ROOT else key, settings.run_dir),
        volumes=volumes,
        secrets=Secrets(records, settings.root),
        snapshots=Snapshots(volumes, content, records, images.leases),
        cache=Cache(records, content.has, Kept(settings.root / "build" / "cache")),
        events=Events(),
        shipping=Shipping(settings.run_dir, settings.journal, table.all),
        spares=settings.spares,
    )
    context.networks.labels = lambda key: record.request.labels if (record := table.get(key)) else {}
    images.users = context.users_of_image
    images.holders.append(context.snapshots.roots)
    return context


def uninstall(settings: Settings) -> None:
    """Take off the host what the engine put there for its instances. Raises `Conflict` while one of them runs."""
    records = Records(settings.root / "record.db")
    context = _context(settings, records)
    for record in context.table.all():
        if context.driver(record).status(record.plan).word in ("running", "paused"):
            raise Conflict(f"cannot uninstall: instance {record.name} is running", hint="trivet stop it first")
        context.driver(record).release(record.plan)
    context.stock.close()
    sweep(context, {record.id for record in context.table.all()})
    context.shipping.stop()
    context.networks.remove_all()
    context.overlay.hide_all()
    staging.sweep(settings.run_dir, ())
    context.volumes.hide_all()
    standby.sweep(settings.run_dir / "i", context.cgroup)
    Group(detect(), context.cgroup).remove()
    Offered(settings.run_dir).sweep()
    for name in ("i", "netns"):
        shutil.rmtree(settings.run_dir / name, ignore_errors=True)
    for name in ("relay.log", "ship.lock"):
        (settings.run_dir / name).unlink(missing_ok=True)
    records.close()


def _fleet(settings: Settings, context: Context, host: str) -> Fleet | None:
    """Join the fleet, if there is one."""
    if not settings.store:
        return None
    fleet = Fleet(context.networks, settings.store, host, settings.advertise, settings.store_ttl)
    context.networks.join(fleet)
    return fleet


def _builder(settings: Settings, context: Context) -> Builder:
    cache = context.cache
    assert isinstance(cache, Cache)
    tools = Tools(
        images=context.images,
        snapshotter=context.overlay,
        networks=context.networks,
        driver=context.drivers["container"],
        cache=cache,
        offered=Offered(settings.run_dir),
        home=settings.root / "build",
        run=settings.run_dir,
        cgroup=context.cgroup,
    )
    context.images.holders.append(cache.roots)
    builder = Builder(tools)
    context.images.unpacked.append(builder.layered)
    return builder


def identity(records: Records) -> str:
    """Return the engine's own id, made once per root directory."""
    table = records.table("engine", Identity)
    with records.transaction():
        if not table.all():
            made = Identity(new_id())
            table.insert(made.id, made)
        return table.all()[0].id
