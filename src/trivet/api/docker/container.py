"""Containers: their life, and what there is to see of them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker import check, checkpoint, creation, filter, link, mount, view
from trivet.api.docker.error import NameTaken, text
from trivet.api.docker.raw import parse_keys
from trivet.api.docker.route import Filters, Route, answer, body, filters, flag, name, nothing, whole
from trivet.base.error import Conflict, InvalidArgument, NotFound, TrivetError
from trivet.client.schema import MountRequest
from trivet.client.schema_network import Network
from trivet.engine.engine import Engine
from trivet.engine.instance.status import Word
from trivet.oci import platform as platforms

CONDITIONS = {"": "exited", "not-running": "exited", "next-exit": "next-exit", "removed": "gone"}
JOIN = "container:"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class Limits(creation.Resources, frozen=True, rename="pascal"):
    """The body of an update: the part of HostConfig that can change."""

    restart_policy: creation.Policy | None = None


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, creation.Creation)
    if not request["said"]:
        raise InvalidArgument("config cannot be empty in order to create a container")
    wanted, platform = request.query.get("name", "").lstrip("/"), request.query.get("platform", "")
    _check_name(engine, wanted)
    check.creation(wish)
    _check_others(engine, wish.host_config)
    more = [each for text in wish.host_config.volumes_from or () for each in await _volumes_of(engine, text)]
    await _check_platform(engine, wish.image, platform)
    made = await engine.instances.create(creation.request(wish, wanted, platform, more))
    said = request["said"].get("HostConfig") or {}
    names = frozenset(key for key, value in said.items() if value and value != -1)
    ignored = creation.warnings(wish.host_config, names)
    return answer({"Id": made.id, "Warnings": [*made.warnings, *ignored]}, 201)


def _check_name(engine: Engine, wanted: str, before: str = "") -> None:
    if wanted and not NAME.fullmatch(wanted):
        shown = f"/{wanted}" if before else wanted
        raise InvalidArgument(f"{before}Invalid container name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if owner := engine.instances.named(wanted):
        raise NameTaken(wanted, owner, before)


async def _check_platform(engine: Engine, image: str, wanted: str) -> None:
    """Make sure that an image is for the platform that is asked for: the others aren't seen, as at dockerd."""
    if not (image and wanted):
        return
    platform = platforms.parse(wanted)
    config = (await engine.inspect_image(image)).config
    found = (config.get("os") or platform.os, config.get("architecture") or platform.architecture)
    if found != (platform.os, platform.architecture):
        there = f"its platform ({'/'.join(found)}) does not match the specified platform ({wanted})"
        raise NotFound(f"image with reference {image} was found but {there}")


def _check_others(engine: Engine, wish: creation.HostConfig) -> None:
    """Make sure that containers something is shared with are there: dockerd has a status of its own for that."""
    places = [(text.partition(":")[0], "") for text in wish.volumes_from or () if text]
    places += [(text[len(JOIN) :], "") for text in (wish.ipc_mode, wish.pid_mode) if text.startswith(JOIN)]
    names = (each.instance for each in link.requests("", wish.links or ()))
    places += [(each, f"could not get container for {each}: ") for each in names]
    for ref, before in places:
        try:
            engine.instances.key(ref)
        except NotFound:
            raise InvalidArgument(f"{before}No such container: {ref}") from None


async def _volumes_of(engine: Engine, text: str) -> list[MountRequest]:
    """List the mounts of another container as requests of one's own (`--volumes-from NAME[:MODE]`)."""
    ref, _, mode = text.partition(":")
    read_only = mount.shared_mode(text, mode)
    other = await engine.instances.inspect(ref)
    return [
        MountRequest(
            kind="volume" if each.name else "image" if each.image else "bind",
            source=each.name or each.image or each.source,
            target=each.target,
            subpath=each.subpath,
            read_only=each.read_only or read_only,
        )
        for each in other.mounts
        if each.kind != "tmpfs"
    ]


FILTERS = (
    *("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!", "name"),
    *("network", "publish", "since", "status", "volume"),
)
STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTH = ("starting", "healthy", "unhealthy", "none")


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted, limit = filters(request), whole(request, "limit", 0)
    patterns = {"name": wanted.pop("name", [])}
    task = _check(wanted)
    found = await engine.instances.select(
        every=flag(request, "all") or limit > 0, filters=_known(wanted), size=flag(request, "size")
    )
    found = [each for each in found if not task and filter.named(patterns, "name", each.name, f"/{each.name}")]
    networks, aliases = await by_name(engine), engine.instances.aliases()
    shown = found[:limit] if limit > 0 else found
    sizes = await _image_sizes(engine, {each.image_id for each in shown}) if flag(request, "size") else {}
    return answer([view.row(each, networks, aliases.get(each.id, ()), sizes.get(each.image_id, 0)) for each in shown])


async def _image_sizes(engine: Engine, ids: set[str]) -> dict[str, int]:
    """Tell how large images are, but those that have gone."""
    return {each.id: each.size for each in await engine.list_images({}) if each.id in ids}


def _check(wanted: Filters) -> bool:
    """Check filters, and take out that for tasks of a swarm, which nothing here is. Raises `InvalidArgument`."""
    filter.known(wanted, *FILTERS)
    filter.one_of(wanted, "status", STATUSES)
    filter.one_of(wanted, "health", HEALTH)
    filter.whole(wanted, "exited")
    for key in ("publish", "expose"):
        for value in wanted.get(key, ()):
            if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?", value):
                raise InvalidArgument(f"invalid filter '{key}={value}'")
    task = filter.truth(wanted, "is-task")
    wanted.pop("is-task", None)
    return bool(task)


def _known(wanted: Filters) -> Filters:
    """Translate Docker's filters: ancestor is an image."""
    found = dict(wanted)
    if "ancestor" in found:
        found["image"] = found.pop("ancestor")
    return found


async def by_name(engine: Engine) -> dict[str, Network]:
    """Tell the networks by their names."""
    return {network.name: network for network in await engine.list_networks({})}


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    found = await engine.instances.inspect(name(request), size=flag(request, "size"))
    try:
        image = await engine.inspect_image(found.image_id) if found.image_id else None  # a machine may have none
    except NotFound:
        image = None
    sessions = engine.instances.sessions.of_instance(found.id)
    surroundings = engine.instances.surroundings(found.id)
    return answer(view.inspect(found, image, await by_name(engine), sessions, surroundings))


async def start(engine: Engine, request: web.Request) -> web.StreamResponse:
    parse_keys(request.query.get("detachKeys", ""))
    found = await engine.instances.inspect(name(request))
    if found.status == Word.RUNNING:
        return nothing(304)
    if request.query.get("checkpoint"):
        await checkpoint.go_on(engine, request, found.id)
    else:
        await engine.instances.start(found.id)
    return nothing()


async def stop(engine: Engine, request: web.Request) -> web.StreamResponse:
    found = await engine.instances.inspect(name(request))
    if found.status in (Word.CREATED, Word.EXITED):
        return nothing(304)
    await engine.instances.stop(found.id, _grace(request), request.query.get("signal", ""))
    return nothing()


async def restart(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.restart(name(request), _grace(request), request.query.get("signal", ""))
    return nothing()


def _grace(request: web.Request) -> float | None:
    return float(whole(request, "t", 0)) if request.query.get("t") else None


async def kill(engine: Engine, request: web.Request) -> web.StreamResponse:
    try:
        await engine.instances.kill(name(request), request.query.get("signal") or "KILL")
    except NotFound as error:
        raise NotFound(f"cannot kill container: {name(request)}: {text(error)}") from error
    return nothing()


async def pause(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.pause(name(request))
    return nothing()


async def unpause(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.instances.resume(name(request))
    return nothing()


async def rename(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted = request.query.get("name", "").lstrip("/")
    if not wanted:
        raise InvalidArgument("Neither old nor new names may be empty")
    found = await engine.instances.inspect(name(request))
    if found.name == wanted:
        raise InvalidArgument("Renaming a container with the same name as its current name")
    _check_name(engine, wanted, "Error when allocating new name: ")
    await engine.instances.rename(found.id, wanted)
    return nothing()


async def update(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, Limits)
    check.limits(wish)
    fields: dict[str, Any] = {
        "memory": wish.memory,
        "memory_swap": wish.memory_swap,
        "memory_reservation": wish.memory_reservation,
        "cpus": creation.cpus(wish.nano_cpus, wish.cpu_quota, wish.cpu_period),
        "cpu_shares": wish.cpu_shares,
        "cpuset": wish.cpuset_cpus,
        "cpuset_mems": wish.cpuset_mems,
        "pids_limit": wish.pids_limit,
    }
    fields = {key: value for key, value in fields.items() if value}
    if wish.restart_policy and wish.restart_policy.name:
        fields["restart"] = creation.policy(wish.restart_policy)
    await engine.instances.update(name(request), **fields)
    return answer({"Warnings": None})


async def wait(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Send the head at once: clients start the container only when they have seen it."""
    condition = request.query.get("condition", "")
    if condition not in CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    key = engine.instances.key(name(request))
    ending = asyncio.create_task(engine.instances.wait(key, CONDITIONS[condition]))
    try:
        await asyncio.sleep(0)  # its first step, in which it begins to listen
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b"")
        await response.write(msgspec.json.encode({"StatusCode": (await ending).code}) + b"\n")
        await response.write_eof()
        return response
    finally:
        ending.cancel()


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    if flag(request, "link"):
        raise Conflict("Conflict, cannot remove the default link name of the container")
    await engine.instances.remove(name(request), force=flag(request, "force"), volumes=flag(request, "v"))
    return nothing()


async def unlink(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Take away a link, which has a name of its own: CONTAINER/ALIAS."""
    if not flag(request, "link"):
        raise NotFound(f"No such container: {name(request)}/{request.match_info['alias']}")
    await engine.instances.unlink(name(request), request.match_info["alias"])
    return nothing()


async def prune(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted = filters(request)
    filter.known(wanted, "label", "label!", "until")
    filter.moment(wanted)
    done, freed = [], 0
    chosen: Filters = {**wanted, "status": [Word.CREATED, Word.EXITED]}
    for each in await engine.instances.select(every=True, filters=chosen, size=True):
        try:
            await engine.instances.remove(each.id)
        except TrivetError:  # somebody started or removed it meanwhile
            continue
        done.append(each.id)
        freed += max(each.size, 0)
    return answer({"ContainersDeleted": done or None, "SpaceReclaimed": freed})


ONE = "/containers/{name}"
ROUTES = (
    Route("POST", "/containers/create", create, ("name", "platform"), creation.Creation),
    Route("GET", "/containers/json", listing, ("all", "limit", "size", "filters")),
    Route("POST", "/containers/prune", prune, ("filters",)),
    Route("GET", ONE + "/json", inspect, ("size",)),
    Route("POST", ONE + "/start", start, ("detachKeys", "checkpoint", "checkpoint-dir")),
    Route("POST", ONE + "/stop", stop, ("t", "signal")),
    Route("POST", ONE + "/restart", restart, ("t", "signal")),
    Route("POST", ONE + "/kill", kill, ("signal",)),
    Route("POST", ONE + "/pause", pause),
    Route("POST", ONE + "/unpause", unpause),
    Route("POST", ONE + "/rename", rename, ("name",)),
    Route("POST", ONE + "/update", update, body=Limits),
    Route("POST", ONE + "/wait", wait, ("condition",)),
    Route("DELETE", ONE, remove, ("v", "force", "link")),
    Route("DELETE", ONE + "/{alias}", unlink, ("link",)),
)
