"""What there is: lists by filter, the engine's description of itself, what takes space."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from trivet.base.error import InvalidArgument
from trivet.client.schema_host import Info, LevelInfo, Usage
from trivet.client.schema_network import Network
from trivet.client.schema_volume import Volume
from trivet.engine.host import facts
from trivet.engine.image.model import ImageRecord
from trivet.engine.instance.context import Context
from trivet.engine.instance.status import Word
from trivet.isolation.driver import Forking

T = TypeVar("T")
Match = Callable[[T, str], bool]


def _label(labels: dict[str, str], wanted: str) -> bool:
    key, sign, value = wanted.partition("=")
    return key in labels and (not sign or labels[key] == value)


IMAGE: dict[str, Match[ImageRecord]] = {
    "reference": lambda record, value: any(value in name.familiar for name in record.names),
    "dangling": lambda record, value: (not record.names) == (value in ("true", "1")),
    "label": lambda record, value: _label(record.labels, value),
}
VOLUME: dict[str, Match[Volume]] = {
    "name": lambda volume, value: value in volume.name,
    "dangling": lambda volume, value: (not volume.users) == (value in ("true", "1")),
    "label": lambda volume, value: _label(volume.labels, value),
}
NETWORK: dict[str, Match[Network]] = {
    "name": lambda network, value: value in network.name,
    "driver": lambda network, value: network.driver == value,
    "label": lambda network, value: _label(network.labels, value),
}


def select_images(records: list[ImageRecord], filters: dict[str, list[str]]) -> list[ImageRecord]:
    """Keep the images that every filter accepts."""
    return _select(records, filters, IMAGE)


def select_volumes(volumes: list[Volume], filters: dict[str, list[str]]) -> list[Volume]:
    """Keep the volumes that every filter accepts."""
    return _select(volumes, filters, VOLUME)


def select_networks(networks: list[Network], filters: dict[str, list[str]]) -> list[Network]:
    """Keep the networks that every filter accepts."""
    return _select(networks, filters, NETWORK)


def _select(items: list[T], filters: dict[str, list[str]], table: dict[str, Match[T]]) -> list[T]:
    for key in filters:
        if key not in table:
            raise InvalidArgument(f"unknown filter {key}", hint=f"one of {', '.join(table)}")
    return [
        item
        for item in items
        if all(any(table[key](item, value) for value in values) for key, values in filters.items())
    ]


def info(context: Context, engine_id: str, version: str) -> Info:
    """Describe engine, host and what each level can do here."""
    abilities = [driver.ability() for driver in context.drivers.values()]
    return Info(
        version=version,
        id=engine_id,
        root=str(context.root),
        run_directory=str(context.run),
        pid=os.getpid(),
        host=facts(),
        levels=[
            LevelInfo(
                level=ability.level,
                available=not ability.missing,
                acceleration=ability.acceleration,
                unshared=list(ability.unshared),
                missing=list(ability.missing),
                hint=ability.hint,
            )
            for ability in abilities
        ],
        snapshotter=str(context.overlay.kind),
        instances=dict(Counter(str(record.word) for record in context.table.all())),
        images=len(context.images.list()),
        warnings=[
            f"level {ability.level} is emulated: no hardware virtualization was found"
            for ability in abilities
            if ability.acceleration == "emulation"
        ],
    )


def usage(context: Context, users: dict[str, list[str]]) -> list[Usage]:
    """Measure images, instances and volumes on disk."""
    records = context.table.all()
    sizes = {record.id: context.snapshotter(record).usage(record.id) for record in records}
    running = {record.id for record in records if record.word in (Word.RUNNING, Word.PAUSED)}
    volumes = context.volumes.list(users, True)
    return [
        context.images.df(),
        context.images.df_layers(),
        context.images.df_disks(),
        Usage(
            kind="instances",
            total=len(records),
            active=len(running),
            size=sum(sizes.values()),
            reclaimable=sum(size for key, size in sizes.items() if key not in running),
        ),
        Usage(
            kind="volumes",
            total=len(volumes),
            active=sum(bool(volume.users) for volume in volumes),
            size=sum(volume.size for volume in volumes),
            reclaimable=sum(volume.size for volume in volumes if not volume.users),
        ),
        context.cache.usage(),
        *_templates(context),
    ]


def _templates(context: Context) -> list[Usage]:
    found = [driver.templates() for driver in context.drivers.values() if isinstance(driver, Forking)]
    return [Usage(kind="templates", total=count, active=0, size=size, reclaimable=size) for count, size in found]
