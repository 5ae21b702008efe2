"""Images: what is here, and what is done with it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker import filter
from trivet.api.docker.duration import moment, nanoseconds, seconds
from trivet.api.docker.progress import stream
from trivet.api.docker.route import Filters, Route, answer, body, filters, flag, name, nothing
from trivet.api.transfer import download, upload
from trivet.base.error import InvalidArgument, TrivetError
from trivet.client.schema import Progress, PruneRequest
from trivet.client.schema_image import Image, ImageDetail
from trivet.engine.engine import Engine
from trivet.oci import reference as references


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await rows(engine, filters(request)))


async def rows(engine: Engine, wanted: Filters) -> list[dict[str, Any]]:
    """List images, newest first; `before`, `since` and `until` compare times of creation."""
    filter.known(wanted, "before", "dangling", "label", "label!", "reference", "since", "until")
    dangling = filter.truth(wanted, "dangling")
    bounds = [
        (key, await _created(engine, key, value))
        for key in ("before", "since", "until")
        for value in wanted.get(key, ())
    ]
    return [
        _row(each)
        for each in await engine.list_images({})
        if (dangling is None or dangling == (not each.names))
        and filter.labelled(wanted, each.labels)
        and ("reference" not in wanted or filter.referenced(wanted["reference"], each.names))
        and all(
            nanoseconds(each.created) > bound if key == "since" else nanoseconds(each.created) < bound
            for key, bound in bounds
        )
    ]


async def _created(engine: Engine, key: str, value: str) -> int:
    return nanoseconds(value if key == "until" else (await engine.inspect_image(value)).created)


def _row(found: Image) -> dict[str, Any]:
    return {
        "Id": found.id,
        "ParentId": "",
        "RepoTags": _tags(found.names),
        "RepoDigests": _digests(found.names, found.digest),
        "Created": seconds(found.created),
        "Size": found.size,
        "SharedSize": -1,
        "Containers": -1,
        "Labels": found.labels or None,
    }


def _tags(names: list[str]) -> list[str]:
    return [each for each in names if "@" not in each]


def _digests(names: list[str], digest: str) -> list[str]:
    bare = {msgspec.structs.replace(references.parse(each), tag="", digest="").familiar for each in names}
    return [f"{each}@{digest}" for each in sorted(bare)]


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(shown(await engine.inspect_image(name(request))))


def shown(found: ImageDetail) -> dict[str, Any]:
    """Show an image; its configuration is given as it is stored."""
    stored = found.config
    return {
        "Id": found.id,
        "RepoTags": _tags(found.names),
        "RepoDigests": _digests(found.names, found.digest),
        "Parent": "",
        "Comment": (stored.get("history") or [{}])[-1].get("comment", ""),
        "Created": moment(found.created),
        "Container": "",
        "DockerVersion": "",
        "Author": stored.get("author") or "",
        "Config": stored.get("config") or {},
        # dockerd has left it out since API 1.45, and so broken docker-compose 1, which asks it for volumes.
        "ContainerConfig": stored.get("config") or {},
        "Architecture": stored.get("architecture", ""),
        "Variant": stored.get("variant") or "",
        "Os": stored.get("os", ""),
        "Size": found.size,
        "GraphDriver": {"Data": None, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": [layer["diff_id"] for layer in found.layers]},
        "Metadata": {"LastTagTime": moment(found.created if found.names else "")},
    }


async def history(engine: Engine, request: web.Request) -> web.StreamResponse:
    found = await engine.inspect_image(name(request))
    return answer(
        [
            {
                "Id": "<missing>" if index else found.id,
                "Created": seconds(step["created"]),
                "CreatedBy": step["created_by"],
                "Tags": None if index else _tags(found.names),
                "Size": step["size"],
                "Comment": step["comment"],
            }
            for index, step in enumerate(found.history)
        ]
    )


async def tag(engine: Engine, request: web.Request) -> web.StreamResponse:
    repository, wanted = request.query.get("repo", ""), request.query.get("tag", "")
    if not repository:
        raise InvalidArgument("repository name must have at least one component")
    await engine.tag_image(name(request), f"{repository}:{wanted}" if wanted else repository)
    return nothing(201)


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    done = await engine.remove_image(name(request), force=flag(request, "force"))
    return answer([{"Untagged": each} for each in done.untagged] + [{"Deleted": each} for each in done.deleted])


async def prune(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Remove images without a name, with `dangling=false` all that no container needs."""
    wanted = filters(request)
    filter.known(wanted, "dangling", "label", "label!", "until")
    every, until = filter.truth(wanted, "dangling") is False, filter.moment(wanted)
    used = {each.image_id for each in await engine.instances.select(every=True, filters={}, size=False)}
    gone: list[dict[str, str]] = []
    freed = 0
    for each in await engine.list_images({}):
        if each.id in used or (each.names and not every) or not filter.labelled(wanted, each.labels):
            continue
        if until and nanoseconds(each.created) > until:
            continue
        for ref in each.names or [each.id]:
            with suppress(TrivetError):  # somebody uses it since
                done = await engine.remove_image(ref, force=False)
                gone += [{"Untagged": text} for text in done.untagged] + [{"Deleted": text} for text in done.deleted]
                freed += done.freed
    if not wanted.keys() - {"dangling"}:
        rest = await engine.prune(PruneRequest(kinds=["images"], all=every))
        gone += [{"Deleted": text} for text in rest.deleted]
        freed += rest.freed
    return answer({"ImagesDeleted": gone or None, "SpaceReclaimed": freed})


async def load(engine: Engine, request: web.Request) -> web.StreamResponse:
    def spell(item: Progress) -> list[dict[str, Any]]:
        return []

    def end(result: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"stream": f"Loaded image{' ID' * each.startswith(('sha256:', 'sha512:'))}: {each}\n"}
            for each in result["names"]
        ]

    async with upload(request, engine.spool) as file:
        return await stream(request, lambda report: engine.load_images(file, report), spell, end, early=True)


async def save(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Write one image, or those named in `names`, as a tar that Docker reads."""
    single = request.match_info.get("name")
    names = [single] if single else request.query.getall("names", [])
    for each in names:
        await engine.inspect_image(each)
    return await download(request, lambda file: engine.save_images(names, file, "docker"))


class CommitConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of a commit, as far as the command uses it: all of it stands in `changes` too."""


async def commit(engine: Engine, request: web.Request) -> web.StreamResponse:
    await body(request, CommitConfig)
    if not request.query.get("container"):
        raise InvalidArgument('invalid name or ID supplied: ""')
    repository, wanted = request.query.get("repo", ""), request.query.get("tag", "")
    made = await engine.commit(
        request.query.get("container", "").lstrip("/"),
        f"{repository}:{wanted}" if repository and wanted else repository,
        changes=[line for text in request.query.getall("changes", []) for line in text.split("\n") if line],
        author=request.query.get("author", ""),
        message=request.query.get("comment", ""),
        pause=flag(request, "pause", default=True),
    )
    return answer({"Id": made}, 201)


ONE = "/images/{name:.+}"
ROUTES = (
    Route("GET", "/images/json", listing, ("filters", "all", "digests", "shared-size", "manifests")),
    Route("GET", "/images/get", save, ("names", "platform")),
    Route("POST", "/images/load", load, ("quiet", "platform")),
    Route("POST", "/images/prune", prune, ("filters",)),
    Route("POST", "/commit", commit, ("container", "repo", "tag", "comment", "author", "changes", "pause")),
    Route("GET", ONE + "/json", inspect, ("manifests", "platform")),
    Route("GET", ONE + "/history", history, ("platform",)),
    Route("GET", ONE + "/get", save, ("platform",)),
    Route("POST", ONE + "/tag", tag, ("repo", "tag")),
    Route("DELETE", ONE, remove, ("force", "noprune", "platforms")),
)
