"""House-keeping: verify what is stored, and remove what nobody needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from trivet.base.error import InvalidArgument
from trivet.client.schema import PruneRequest, Removed
from trivet.client.schema_host import Finding
from trivet.engine.image.release import removed
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.remove import remove
from trivet.engine.instance.status import Word
from trivet.isolation.driver import Forking

KINDS = ("instances", "networks", "volumes", "build", "templates", "images", "layer blobs")


async def check(context: Context, repair: bool) -> list[Finding]:
    """Verify records, content, instances and networks; each finding says what `repair` would do, or did."""
    findings = await asyncio.to_thread(_problems, context)
    findings += await asyncio.to_thread(context.images.check, repair)
    findings += await asyncio.to_thread(context.snapshots.check)
    if repair:
        await asyncio.to_thread(context.networks.let_go)
        findings += await asyncio.to_thread(context.networks.check, repaired=True)
        await asyncio.to_thread(context.networks.restore, list(context.watches))
        return findings
    return findings + await asyncio.to_thread(context.networks.check)


def _problems(context: Context) -> list[Finding]:
    findings = [
        Finding(object=str(context.records.path), problem=text, repair="restore it from a backup")
        for text in context.records.problems()
    ]
    for record in context.table.all():
        findings += _instance_problems(context, record)
    return findings


def _instance_problems(context: Context, record: InstanceRecord) -> list[Finding]:
    """Compare a record with what runs. The steward and the next start of the engine mend these by themselves."""
    name = f"instance {record.name}"
    status = context.driver(record).status(record.plan)
    found: list[tuple[str, str]] = []
    runs = status.word in ("running", "paused")
    if record.word in (Word.RUNNING, Word.PAUSED) and not runs and record.id not in context.watches:
        found.append((f"is recorded as {record.word}, but is {status.word}", "restart the engine"))
    if record.word in (Word.CREATED, Word.EXITED) and runs:
        found.append((f"runs, but is recorded as {record.word}", "restart the engine"))
    for path in (record.plan.root.upper, *record.plan.root.lowers):
        if path and not Path(path).exists():
            found.append((f"its root needs {path}, which is missing", f"trivet rm {record.name}"))
    return [Finding(object=name, problem=problem, repair=repair) for problem, repair in found]


async def prune(context: Context, request: PruneRequest) -> Removed:
    """Remove stopped instances, unused networks and volumes, unneeded images; each frees something for the next."""
    unknown = set(request.kinds) - set(KINDS)
    if unknown:
        raise InvalidArgument(f"cannot prune {', '.join(sorted(unknown))}", hint=f"one of {', '.join(KINDS)}")
    deleted: list[str] = []
    untagged: list[str] = []
    freed = 0
    for kind in KINDS:
        if kind in request.kinds:
            done = await PRUNERS[kind](context, request)
            deleted += done.deleted
            untagged += done.untagged
            freed += done.freed
    return Removed(deleted=deleted, untagged=untagged, freed=freed)


def _ended(context: Context) -> list[InstanceRecord]:
    return [record for record in context.table.all() if record.word in (Word.CREATED, Word.EXITED)]


def _going(context: Context, request: PruneRequest) -> list[InstanceRecord]:
    """List the instances that would be gone by now if this weren't a dry run."""
    return _ended(context) if request.dry_run and "instances" in request.kinds else []


async def _prune_instances(context: Context, request: PruneRequest) -> Removed:
    deleted, freed = [], 0
    for record in _ended(context):
        freed += await asyncio.to_thread(context.snapshotter(record).usage, record.id)
        deleted.append(f"instance {record.name}")
        if not request.dry_run:
            async with context.locks.hold(record.id, "removing"):
                await remove(context, record.id)
    return Removed(deleted=deleted, freed=freed)


async def _prune_networks(context: Context, request: PruneRequest) -> Removed:
    going = [record.id for record in _going(context, request)]
    names = await asyncio.to_thread(context.networks.prune, request.dry_run, going)
    return Removed(deleted=[f"network {name}" for name in names])


async def _prune_volumes(context: Context, request: PruneRequest) -> Removed:
    """Anonymous volumes; with `all` named ones too, unless `anonymous`."""
    going = {record.id for record in _going(context, request)}
    users = {volume for record in context.table.all() if record.id not in going for volume in record.volumes}
    every = request.all and not request.anonymous
    return await asyncio.to_thread(context.volumes.prune, users, every=every, dry_run=request.dry_run)


async def _prune_build(context: Context, request: PruneRequest) -> Removed:
    """The build cache's entries, and their layers unless images have them; with images to prune they go with those."""

    def empty() -> Removed:
        removed = context.cache.forget(request.dry_run)
        if "images" in request.kinds:
            return removed
        freed = context.images.sweep(dry_run=request.dry_run, first=context.cache.prune)
        return msgspec.structs.replace(removed, freed=removed.freed + freed)

    return await asyncio.to_thread(empty)


async def _prune_templates(context: Context, request: PruneRequest) -> Removed:
    """What machines are forked from; those that run go on."""
    removed = Removed()
    for driver in context.drivers.values():
        if isinstance(driver, Forking):
            names, freed = await asyncio.to_thread(driver.prune_templates, dry_run=request.dry_run)
            removed = Removed(deleted=[*removed.deleted, *(f"template {name}" for name in names)], freed=freed)
    return removed


async def _prune_images(context: Context, request: PruneRequest) -> Removed:
    going = [record.id for record in _going(context, request)]

    def first() -> None:
        for key in going:  # taken back when it was measured
            context.table.delete(key)
        if "build" in request.kinds:
            context.cache.prune()

    return await asyncio.to_thread(
        context.images.prune,
        every=request.all,
        dry_run=request.dry_run,
        first=first,
        without=going,
        layer_blobs="layer blobs" in request.kinds,
    )


async def _prune_layer_blobs(context: Context, request: PruneRequest) -> Removed:
    """What layers came as, where they are unpacked and can be had again; with images to prune they go with those."""
    if "images" in request.kinds:
        return Removed()
    return removed(await asyncio.to_thread(context.images.release, dry_run=request.dry_run))


PRUNERS: dict[str, Callable[[Context, PruneRequest], Awaitable[Removed]]] = {
    "instances": _prune_instances,
    "networks": _prune_networks,
    "volumes": _prune_volumes,
    "build": _prune_build,
    "templates": _prune_templates,
    "images": _prune_images,
    "layer blobs": _prune_layer_blobs,
}
