"""What the engine remembers about an instance."""

from __future__ import annotations

import msgspec

from trivet.base.clock import rfc3339
from trivet.client.schema import Instance, InstanceRequest, MountUse, UserRange
from trivet.client.schema_health import Health, HealthCheck
from trivet.client.schema_network import EndpointRequest, NetworkUse, Port
from trivet.engine.instance.status import Word
from trivet.isolation.plan import Attachment, Plan


class InstanceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One instance: what was asked for, what was planned, and how it stands. Times are Unix nanoseconds.

    `wanted` is False once somebody asked it to stop: restart policies then leave it alone.
    `check` is how its health is found out, `health` what was found since it was started.
    `linked` names the variables that are there because of links.
    `origin` says how a machine began: forked, restored, or booted and why.
    `checkpoint` is the snapshot that was taken last, or gone back to.
    `image` is the name it was asked for by, `image_id` the digest of its configuration.
    """

    id: str
    name: str
    request: InstanceRequest
    image: str
    image_id: str
    plan: Plan
    word: Word = Word.CREATED
    wanted: bool = False
    acceleration: str = "native"
    origin: str = ""
    checkpoint: str = ""
    created: int = 0
    started: int = 0
    finished: int = 0
    restarts: int = 0
    pid: int = 0
    exit_code: int = 0
    exit_signal: int = 0
    out_of_memory: bool = False
    error: str = ""
    ports: tuple[Port, ...] = ()
    check: HealthCheck | None = None
    health: Health | None = None
    linked: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    anonymous_volumes: tuple[str, ...] = ()
    mounted_images: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """The ids of the images it is made from: one, or that of a further disk too."""
        machine = self.request.machine
        return (self.image_id, *(disk.image for disk in (machine.disks if machine else ()) if disk.image))

    def change(self, **fields: object) -> InstanceRecord:
        """Return a copy with some fields replaced."""
        return msgspec.structs.replace(self, **fields)


def view(record: InstanceRecord, size: int = -1) -> Instance:
    """Show a record as the API does."""
    plan = record.plan
    return Instance(
        id=record.id,
        name=record.name,
        image=record.image,
        image_id=record.image_id,
        isolation=record.request.isolation,
        acceleration=record.acceleration,
        origin=record.origin,
        status=record.word,
        pid=record.pid,
        exit_code=record.exit_code,
        exit_signal=record.exit_signal,
        out_of_memory=record.out_of_memory,
        error=record.error,
        created=rfc3339(record.created),
        started=rfc3339(record.started),
        finished=rfc3339(record.finished),
        restarts=record.restarts,
        command=list(plan.program.argv),
        ports=list(record.ports),
        networks=[
            NetworkUse(
                network=use.network,
                interface=use.name if use.kind in ("netns", "tap") else "",
                addresses=[address.address for address in use.addresses],
                gateway=next((each.gateway for each in use.addresses if ":" not in each.address), ""),
                gateway6=next((each.gateway for each in use.addresses if ":" in each.address), ""),
                mac=use.mac,
                aliases=_wish(record, use.network).aliases,
                rate_in=_wish(record, use.network).rate_in,
                rate_out=_wish(record, use.network).rate_out,
            )
            for use in plan.attachments
            if not _left(record, use)
        ],
        mounts=[
            MountUse(
                kind="image" if mount.image else "volume" if mount.name else mount.kind,
                source=mount.base or mount.source,
                subpath=mount.subpath,
                image=mount.image,
                propagation=mount.propagation,
                target=mount.target,
                read_only=mount.read_only,
                name=mount.name,
            )
            for mount in plan.mounts
        ],
        labels=record.request.labels,
        request=record.request,
        log_path=plan.log.path,
        health=record.health if record.check else None,
        users=UserRange(first=plan.owner.first, size=plan.owner.size) if plan.owner else None,
        size=size,
    )


def _left(record: InstanceRecord, use: Attachment) -> bool:
    """Tell a namespace that is only kept, since the instance left the last network it was on."""
    wishes = [wish.network for wish in record.request.networks]
    return use.kind == "netns" and not use.device and wishes == ["none"] and use.network != "none"


def _wish(record: InstanceRecord, network: str) -> EndpointRequest:
    found = (wish for wish in record.request.networks if wish.network == network)
    return next(found, EndpointRequest(network=network))
