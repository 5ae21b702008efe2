"""A volume's new name in everything that names it: instances that don't run, and their snapshots."""

from __future__ import annotations

from collections.abc import Set

import msgspec

from trivet.client.schema import InstanceRequest
from trivet.engine.checkpoint import model
from trivet.engine.instance.context import Context
from trivet.engine.volume.model import VolumeInUse, VolumeRecord
from trivet.isolation.plan import Mount, Plan


def follow_volume(context: Context, users: Set[str], volume: VolumeRecord) -> None:
    """Let the `users`, by their ids, have a volume under its new name, in the caller's transaction.

    Whoever isn't among them came meanwhile and may be starting. Raises `VolumeInUse` then.
    """
    found = [record for record in context.table.all() if volume.formerly in record.volumes]
    if strangers := [record.name for record in found if record.id not in users]:
        raise VolumeInUse(volume.formerly, strangers)
    for record in found:
        request, plan = _renamed(record.request, record.plan, volume)
        names = tuple(volume.name if name == volume.formerly else name for name in record.volumes)
        left = tuple(name for name in record.anonymous_volumes if name != volume.formerly)  # it has been given a name
        changed = record.change(request=request, plan=plan, volumes=names, anonymous_volumes=left)
        context.table.update(record.id, changed)
    points = model.table(context)
    for point in points.all():
        request, plan = _renamed(point.request, point.plan, volume)
        if plan != point.plan:
            points.update(point.id, msgspec.structs.replace(point, request=request, plan=plan))


def _renamed(request: InstanceRequest, plan: Plan, volume: VolumeRecord) -> tuple[InstanceRequest, Plan]:
    """Name it in what was asked for, and in what was planned, where it is found."""
    wishes = [
        msgspec.structs.replace(wish, source=volume.name)
        if wish.kind == "volume" and wish.source == volume.formerly
        else wish
        for wish in request.mounts
    ]
    mounts = tuple(_moved(each, volume) if each.name == volume.formerly else each for each in plan.mounts)
    return msgspec.structs.replace(request, mounts=wishes), msgspec.structs.replace(plan, mounts=mounts)


def _moved(mount: Mount, volume: VolumeRecord) -> Mount:
    """Show it from where it is; a part is looked for there, and its source is found at the next start."""
    base = volume.mountpoint if mount.base else ""
    return msgspec.structs.replace(mount, name=volume.name, source=volume.mountpoint, base=base)
