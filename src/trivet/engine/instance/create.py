"""Making an instance: image, root, mounts and plan, all or nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import msgspec

from trivet.base.clock import now_ns
from trivet.base.error import Unsupported
from trivet.base.identity import check_name, new_id, new_name
from trivet.base.thread import in_thread
from trivet.client.schema import Created, InstanceRequest
from trivet.client.schema_network import EndpointRequest, PortRequest
from trivet.engine.image.model import ImageRecord
from trivet.engine.instance import link, shared
from trivet.engine.instance.attachment import OTHER, choose, other
from trivet.engine.instance.context import Context
from trivet.engine.instance.device import resolve as resolve_devices
from trivet.engine.instance.health import effective
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.mount import Mounts, resolve
from trivet.engine.instance.owner import separate
from trivet.engine.instance.person import numbers
from trivet.engine.instance.plan import make_plan
from trivet.engine.machine import create as machine
from trivet.isolation.driver import Ability, Driver
from trivet.isolation.plan import Mount, Owner, Plan, Root
from trivet.oci.config import Config
from trivet.shipper import option

Fill = Callable[[InstanceRecord], None]


class LevelMissing(Unsupported):
    """The machine lacks something the isolation level needs."""

    def __init__(self, ability: Ability) -> None:
        super().__init__(
            f"isolation level {ability.level} is not available here: {', '.join(ability.missing)}",
            hint=ability.hint or None,
        )


async def create(
    context: Context, request: InstanceRequest, dry_run: bool = False, *, fill: Fill | None = None
) -> Created:
    """Make an instance that can be started; with `dry_run` undo it all and return its plan instead.

    The image must be in the store already. `fill` may put there what the instance shall have written already.
    Raises what its parts raise, and leaves nothing then.
    """
    name = check_name("instance", request.name) if request.name else new_name()
    option.check(request.log.driver, request.log.options)
    driver = context.machine if request.machine else context.drivers[request.isolation]
    async with AsyncExitStack() as held, AsyncExitStack() as undo:
        record, warnings = await in_thread(make, context, request, name, driver, undo, held)
        if fill:
            await in_thread(fill, record)
        warnings += [word for gate in context.gates if (word := gate.advise(record))]
        if dry_run:
            operations = await asyncio.to_thread(driver.operations, record.plan)
            return Created(id="", warnings=warnings, plan=msgspec.to_builtins(record.plan), operations=operations)
        context.table.insert(record.id, record, name=record.name)
        undo.pop_all()
        if record.plan.owner:
            context.owners.forget(record.plan.owner)
    context.emit("create", record)
    return Created(id=record.id, warnings=warnings)


def make(
    context: Context, request: InstanceRequest, name: str, driver: Driver, undo: AsyncExitStack, held: AsyncExitStack
) -> tuple[InstanceRecord, list[str]]:
    """Make the parts; blocking. What is `held` must not go before the record is there."""
    ability = driver.ability()
    if ability.missing:
        raise LevelMissing(ability)
    if request.machine:
        return machine.make(context, _named(context, request), name, ability, undo, held)
    key = new_id()
    place = context.place(key)
    image = context.images.usable(request.image)
    context.images.check_platform(image, request.image)
    config = context.images.config(image)
    settings = config.defaults
    request = publish_exposed(_named(context, request), settings)
    snapshotter = context.snapshotters[ability.root]
    undo.push_async_callback(asyncio.to_thread, shutil.rmtree, place.state, True)
    place.state.mkdir(parents=True, mode=0o700)
    root = snapshotter.create(key, image, request.storage_size)
    undo.push_async_callback(asyncio.to_thread, snapshotter.remove, key)
    etc = partial(context.overlay.directory, image, "/etc")
    mounts = resolve(
        request.mounts,
        sorted(settings.volumes or {}),
        context.volumes,
        partial(_whole, context),
        partial(numbers, request.user or settings.user or "", etc),
    )
    undo.push_async_callback(asyncio.to_thread, _drop_volumes, context, mounts)
    _fill(context, mounts, image)
    owner = context.owners.reserve(place.run) if separate(request) else None
    if owner:
        undo.callback(context.owners.forget, owner)
    has: Parts = {"key": key, "name": name, "root": root, "mounts": mounts.mounts, "owner": owner}
    plan = planned(context, request, settings, ability, **has)
    record = InstanceRecord(
        id=key,
        name=name,
        request=request,
        image=request.image,
        image_id=image.id,
        plan=plan,
        acceleration=ability.acceleration,
        created=now_ns(),
        check=effective(request.health, settings.healthcheck, settings.shell),
        volumes=mounts.volumes,
        anonymous_volumes=mounts.anonymous,
        mounted_images=mounts.images,
    )
    return record, warnings(request, ability)


class Parts(TypedDict):
    """What an instance has already when it is planned for."""

    key: str
    name: str
    root: Root
    mounts: tuple[Mount, ...]
    owner: Owner | None


def planned(
    context: Context, request: InstanceRequest, settings: Config, ability: Ability, **has: Unpack[Parts]
) -> Plan:
    """Fold all that an instance has into its plan for a level. Raises what an impossible wish deserves."""
    place = context.place(has["key"])
    given = context.secrets.mounts(request.secrets, place.state)
    own = (each for each in has["mounts"] if each.target not in [one.target for one in given])
    has["mounts"] = (*own, *given)
    return make_plan(
        request,
        settings,
        shared=shared.resolve(request),
        memory=shared.memory(request, place.run),
        devices=resolve_devices(request.devices, request.isolation),
        place=place,
        attachments=choose(request, ability, context.networks),
        **has,
    )


def _named(context: Context, request: InstanceRequest) -> InstanceRequest:
    """Replace prefixes and ids by what lasts: names of networks, the id of another instance."""
    request = link.named(context, shared.named(context, request))
    if reference := other(request):
        theirs = EndpointRequest(network=f"{OTHER}{context.table.find(reference).id}")
        return msgspec.structs.replace(request, networks=[theirs, *request.networks[1:]])
    ledger = context.networks.ledger
    wishes = [msgspec.structs.replace(wish, network=ledger.network(wish.network).name) for wish in request.networks]
    return msgspec.structs.replace(request, networks=wishes)


def _fill(context: Context, mounts: Mounts, image: ImageRecord) -> None:
    """Give new volumes the content the image has at their target (Docker's rule for an empty volume)."""
    for volume, path, other_image in mounts.fill:
        source = context.images.usable(other_image) if other_image else image
        context.volumes.fill(volume, context.overlay.directory(source, path))


def _whole(context: Context, reference: str) -> tuple[str, Path]:
    """Show all of an image that is to be mounted."""
    image = context.images.usable(reference)
    return image.id, context.overlay.directory(image, "/")


def _drop_volumes(context: Context, mounts: Mounts) -> None:
    for volume in mounts.made:
        context.volumes.remove(volume)


def publish_exposed(request: InstanceRequest, image: Config) -> InstanceRequest:
    """Add the ports the image exposes; with -P, ask for a free host port for each that nobody asked for."""
    ports = dict.fromkeys(port for text in (*request.exposed, *(image.exposed_ports or {})) for port in _exposed(text))
    request = msgspec.structs.replace(request, exposed=[f"{number}/{protocol}" for number, protocol in ports])
    if not request.publish_all:
        return request
    asked = {(port.container_port, port.protocol) for port in request.ports}
    more = [PortRequest(container_port=port[0], protocol=port[1]) for port in ports if port not in asked]
    return msgspec.structs.replace(request, ports=[*request.ports, *more])


def _exposed(text: str) -> Iterator[tuple[int, Literal["tcp", "udp"]]]:
    """Read `80`, `80/udp` or `80-90/tcp`; what is no port is passed over, as an image may say anything."""
    span, _, protocol = text.partition("/")
    low, _, high = span.partition("-")
    if low.isdigit() and (high or low).isdigit() and protocol in ("", "tcp", "udp"):
        for number in range(max(int(low[:6]), 1), min(int((high or low)[:6]), 65535) + 1):
            yield number, "udp" if protocol == "udp" else "tcp"


def warnings(request: InstanceRequest, ability: Ability) -> list[str]:
    """Tell what was asked for and cannot be as fast or as strict as its words suggest."""
    found = []
    if ability.acceleration == "emulation":
        found.append("no hardware virtualization here: the machine is emulated, its processor is slow")
    if request.isolation == "process" and (request.cap_add or request.cap_drop):
        found.append("capabilities are not changed at level process")
    return found
