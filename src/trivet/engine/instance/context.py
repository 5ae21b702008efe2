"""What the instance functions share: the records, the drivers, and the neighbours they ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from trivet.base.error import Unsupported
from trivet.client.schema import Removed
from trivet.client.schema_host import Usage
from trivet.engine.event import Events
from trivet.engine.image.image import Images
from trivet.engine.instance.expectation import Expectation
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.owner import Owners
from trivet.engine.instance.plan import Place
from trivet.engine.instance.shipping import Shipping
from trivet.engine.instance.stock import Stock
from trivet.engine.instance.watch import Watch
from trivet.engine.network.network import Networks
from trivet.engine.operation import Locks
from trivet.engine.secret import Secrets
from trivet.engine.snapshot.disk import DiskSnapshotter
from trivet.engine.snapshot.overlay import OverlaySnapshotter
from trivet.engine.snapshot.snapshotter import Snapshotter
from trivet.engine.volume.snapshot import Snapshots
from trivet.engine.volume.volume import Volumes
from trivet.isolation.driver import Driver, Pausable
from trivet.store.record import Records, Table


class BuildCache(Protocol):
    """What the engine wants of the builder, which it doesn't know: to show and to empty its cache."""

    def usage(self) -> Usage:
        """Measure it."""

    def forget(self, dry_run: bool) -> Removed:
        """Forget everything."""

    def prune(self) -> object:
        """Forget the steps alone."""


class Gate(Protocol):
    """Who has a say in whether an instance may start."""

    def passing(self, record: InstanceRecord) -> AbstractContextManager[None]:
        """Hold what the instance was promised while it starts. Raises `Exhausted`."""

    def advise(self, record: InstanceRecord) -> str:
        """Tell what would be said if an instance that was just made started now; "" for nothing."""


@dataclass(frozen=True)
class Context:
    """One engine's instances and everything around them. `watches` holds the running ones, by id;
    what is put into `started` is taken over by the steward. `overlay` is the snapshotter of form `mount`.
    `machine` drives those with an operating system of their own, whose roots `disks` holds.
    `cache_dir` is for what can be made again.
    `expectations` are the clients that wait for an instance to start, by its id. `freed` have nothing any more that
    only a running instance needs, by their ids. Every start passes the `gates`. `spares` is how many are made ahead of
    what is often started."""

    root: Path
    run: Path
    cgroup: str
    records: Records
    table: Table[InstanceRecord]
    drivers: Mapping[str, Driver]
    machine: Driver
    overlay: OverlaySnapshotter
    disks: DiskSnapshotter
    cache_dir: Path
    snapshotters: Mapping[str, Snapshotter]
    images: Images
    networks: Networks
    owners: Owners
    stock: Stock
    volumes: Volumes
    secrets: Secrets
    snapshots: Snapshots
    cache: BuildCache
    events: Events
    shipping: Shipping
    locks: Locks = field(default_factory=Locks)
    watches: dict[str, Watch] = field(default_factory=dict)
    started: asyncio.Queue[tuple[str, Watch]] = field(default_factory=asyncio.Queue)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    expectations: dict[str, list[Expectation]] = field(default_factory=dict)
    freed: set[str] = field(default_factory=set)
    gates: list[Gate] = field(default_factory=list)
    spares: int = 0

    def place(self, key: str) -> Place:
        """Tell where instance `key` lives. The run directory is short: socket paths end at 107 bytes."""
        return _place(self.root, self.run, self.cgroup, key)

    def driver(self, record: InstanceRecord) -> Driver:
        """Return the driver of the instance's level."""
        return self.machine if record.plan.hardware else self.drivers[record.request.isolation]

    def pausable(self, record: InstanceRecord) -> Pausable:
        """Return the driver if it can freeze instances. Raises `Unsupported`."""
        driver = self.driver(record)
        if not isinstance(driver, Pausable):
            raise Unsupported(f"cannot pause instance {record.name}: level {driver.level} cannot freeze instances")
        return driver

    def snapshotter(self, record: InstanceRecord) -> Snapshotter:
        """Return the snapshotter that holds the instance's root."""
        return self.snapshotters[record.plan.root.form]

    def users_of_image(self, image_id: str) -> list[str]:
        """Name the instances made from an image, or that have it mounted."""
        return [record.name for record in self.table.all() if image_id in (*record.images, *record.mounted_images)]

    def emit(self, action: str, record: InstanceRecord, **attributes: str) -> None:
        """Tell the world that something happened to an instance."""
        self.events.emit(
            "instance",
            action,
            record.id,
            record.name,
            image=record.image,
            isolation=record.request.isolation,
            labels=record.request.labels,
            **attributes,
        )

    def background(self, task: asyncio.Task[None]) -> None:
        """Keep a task alive until it is done."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@lru_cache(64)  # a start asks a dozen times
def _place(root: Path, run: Path, cgroup: str, key: str) -> Place:
    return Place(state=root / "instance" / key, run=run / "i" / key[:20], cgroup=f"{cgroup}/{key[:20]}")
