"""What has to be done so that an application is as its files say: the difference, as data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from trivet.base.error import NotFound
from trivet.cli.compose import secret, service, store
from trivet.cli.compose.merge import Value
from trivet.cli.compose.project import Project
from trivet.cli.compose.reader import Reader
from trivet.cli.compose.store import PROJECT
from trivet.client.client import Client
from trivet.client.schema import Instance, InstanceRequest
from trivet.client.schema_network import NetworkRequest
from trivet.client.schema_volume import VolumeRequest

SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
ONE_OFF = "com.docker.compose.oneoff"
HASH = "com.docker.compose.config-hash"
WHERE = "com.docker.compose.project.working_dir"
FILES = "com.docker.compose.project.config_files"

Action = Literal["create", "recreate", "start", "keep", "remove"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one instance of a service."""

    action: Action
    service: str
    name: str
    reason: str = ""
    current: Instance | None = None
    request: InstanceRequest | None = None
    files: tuple[secret.File, ...] = ()


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `compose plan`."""

    action: str
    kind: str
    name: str
    reason: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How `up` was called; `scale` holds what --scale says."""

    services: Sequence[str] = ()
    scale: Mapping[str, int] = {}
    alone: bool = False
    always: bool = False
    never: bool = False


def present(client: Client, name: str) -> list[Instance]:
    """List the instances of a project, in the order of their numbers."""
    found = client.instances.list(all=True, wanted={"label": [f"{PROJECT}={name}"]})
    return sorted(found, key=lambda one: (one.labels.get(SERVICE, ""), number_of(one), one.created))


def number_of(instance: Instance) -> int:
    """Tell which instance of its service one is."""
    text = instance.labels.get(NUMBER, "0")
    return int(text) if text.isdecimal() else 0


def is_one_off(instance: Instance) -> bool:
    """Tell whether `compose run` made it."""
    return instance.labels.get(ONE_OFF, "False").lower() == "true"


def desired(
    project: Project, name: str, number: int, *, own: Value | None = None
) -> tuple[InstanceRequest, tuple[secret.File, ...]]:
    """Build the request for an instance, with its labels, and the files to write into it. Raises `ComposeError`.

    `own` is what is said of it, if that isn't what the service says.
    """
    own = project.service(name) if own is None else own
    request = service.request(name, own, project, number)
    mounts, files, secrets = secret.granted(name, own, project)
    request = msgspec.structs.replace(request, mounts=[*request.mounts, *mounts], secrets=secrets)
    digest = hashlib.sha256(msgspec.json.encode([request, files], order="deterministic")).hexdigest()
    labels = {
        **request.labels,
        PROJECT: project.name,
        SERVICE: name,
        NUMBER: str(number),
        ONE_OFF: "False",
        HASH: digest,
        WHERE: project.directory,
        FILES: ",".join(project.files),
    }
    return msgspec.structs.replace(request, labels=labels), tuple(files)


def changes(client: Client, project: Project, wanted: Wanted) -> dict[str, list[Change]]:
    """Compare every wanted service with what there is, in the order of their start. Raises `ComposeError`."""
    there = [one for one in present(client, project.name) if not is_one_off(one)]
    found = {}
    for name in project.wanted(wanted.services, alone=wanted.alone):
        mine = {number_of(one): one for one in there if one.labels.get(SERVICE) == name}
        count = wanted.scale.get(name, service.scale(name, project.service(name)))
        image = _image_id(client, service.image_name(name, project.service(name), project))
        rows = [_change(project, name, number, mine.pop(number, None), image, wanted) for number in range(1, count + 1)]
        rows += [
            Change(action="remove", service=name, name=one.name, current=one, reason=f"{count} are wanted")
            for one in mine.values()
        ]
        found[name] = rows
    return found


def orphans(client: Client, project: Project) -> list[Instance]:
    """List instances of services that the files don't have."""
    known = {*project.services, *project.dormant}
    there = present(client, project.name)
    return [one for one in there if one.labels.get(SERVICE) not in known and not is_one_off(one)]


def steps(client: Client, project: Project, wanted: Wanted) -> list[Step]:
    """List everything that `up` would do."""
    rows = changes(client, project, wanted)
    made = [
        Step(action="create", kind="network", name=one.name) for one in missing_networks(client, project, list(rows))
    ]
    made += [
        Step(action="create", kind="volume", name=one.name) for one in missing_volumes(client, project, list(rows))
    ]
    for name, found in rows.items():
        own = project.service(name)
        image = service.image_name(name, own, project)
        if _image_id(client, image) is None:
            made.append(Step(action="build" if own.get("build") else "pull", kind="image", name=image))
        made += [Step(action=one.action, kind="instance", name=one.name, reason=one.reason) for one in found]
    made += [Step(action="orphan", kind="instance", name=one.name) for one in orphans(client, project)]
    return made


def missing_networks(client: Client, project: Project, names: Sequence[str]) -> list[NetworkRequest]:
    """List the networks that services need and that aren't there. Raises `NotFound` for an external one."""
    there = {one.name for one in client.networks.list()}
    keys: dict[str, None] = {}
    for name in names:
        own = project.service(name)
        if not own.get("network_mode"):
            alone = service.level(Reader(name, own, project)) == "process"  # it has the host's network
            keys |= dict.fromkeys(own.get("networks") or (() if alone else ("default",)))
    return [
        store.network(project, key)
        for key in keys
        if store.network_name(project, key) not in there and _ours(project.networks, key, "network")
    ]


def missing_volumes(client: Client, project: Project, names: Sequence[str]) -> list[VolumeRequest]:
    """List the volumes that services need and that aren't there. Raises `NotFound` for an external one."""
    there = {one.name for one in client.volumes.list()}
    keys: dict[str, None] = {}
    for name in names:
        for mount in project.service(name).get("volumes") or ():
            if mount.get("type", "volume") == "volume" and mount.get("source"):
                keys[str(mount["source"])] = None
    return [
        store.volume(project, key)
        for key in keys
        if store.volume_name(project, key) not in there and _ours(project.volumes, key, "volume")
    ]


def _ours(known: Mapping[str, object], key: str, kind: str) -> bool:
    found = known.get(key)
    if isinstance(found, dict) and store.is_external(found):
        name = found.get("name", key)
        raise NotFound(f"the external {kind} {name} isn't there", hint=f"trivet {kind} create {name}")
    return True


def _image_id(client: Client, name: str) -> str | None:
    try:
        return client.images.get(name).id
    except NotFound:
        return None


def _change(
    project: Project, name: str, number: int, current: Instance | None, image: str | None, wanted: Wanted
) -> Change:
    request, files = desired(project, name, number)
    action, reason = _verdict(current, request, image, wanted)
    return Change(
        action=action, service=name, name=request.name, reason=reason, current=current, request=request, files=files
    )


def _verdict(
    current: Instance | None, request: InstanceRequest, image: str | None, wanted: Wanted
) -> tuple[Action, str]:
    if current is None:
        return "create", ""
    reason = _difference(current, request, image)
    if not wanted.never and (wanted.always or reason):
        return "recreate", reason or "asked for"
    return (
        ("keep", "") if current.status in ("running", "paused", "restarting") else ("start", f"it is {current.status}")
    )


def _difference(current: Instance, request: InstanceRequest, image: str | None) -> str:
    if current.labels.get(HASH) != request.labels[HASH]:
        fields = [
            name
            for name in InstanceRequest.__struct_fields__
            if name not in ("labels", "pull") and getattr(current.request, name) != getattr(request, name)
        ]
        return f"changed: {', '.join(fields) or 'labels, or the content of a file'}"
    return "another image" if image not in (None, current.image_id) else ""
