"""Images from and to elsewhere: pull, import, push, and a look at what a registry has."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from trivet.api.docker.credential import of_request
from trivet.api.docker.progress import bar, stream
from trivet.api.docker.route import Route, name
from trivet.api.transfer import upload
from trivet.base.error import InvalidArgument, NotFound
from trivet.client.schema import Progress
from trivet.engine.engine import Engine
from trivet.oci import reference as references
from trivet.oci.reference import Reference
from trivet.registry.offer import offering

PULLING = {
    # what the engine says of a layer → what Docker does
    "downloading": "Downloading",
    "downloaded": "Download complete",
    "exists": "Already exists",
    "unpacking": "Extracting",
}
PUSHING = {"pushing": "Pushing", "pushed": "Pushed", "exists": "Layer already exists"}


TAG = re.compile(r"[A-Za-z0-9_][\w.-]{0,127}|[A-Za-z0-9]+(?:[.+_-][A-Za-z0-9]+)*:[0-9a-fA-F]{32,}", re.ASCII)


class ManifestUnknown(NotFound):
    """An image a registry doesn't have, in Docker's words."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(f"manifest for {reference.familiar} not found: manifest unknown: manifest unknown")


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Pull `fromImage`, or make an image of a root file system's tar in the body (`fromSrc=-`)."""
    if request.query.get("fromImage"):
        return await _pull(engine, request, reference(request.query["fromImage"], request.query.get("tag", "")))
    return await _import(engine, request)


def reference(text: str, tag: str) -> Reference:
    """Read an image's name and the tag, or digest, given beside it."""
    if tag:
        if not TAG.fullmatch(tag):
            raise InvalidArgument("invalid tag format")
        text += f"@{tag}" if ":" in tag else f":{tag}"
    return references.parse(text).tagged()


async def _pull(engine: Engine, request: web.Request, wanted: Reference) -> web.StreamResponse:
    known = {each.digest for each in await engine.list_images({}) if wanted.familiar in each.names}
    platform, credentials = request.query.get("platform", ""), of_request(request)

    async def work(report: Any) -> dict[str, Any]:
        try:
            with offering(wanted.domain, credentials):
                return await engine.pull_image(str(wanted), platform, report)
        except NotFound as error:
            raise ManifestUnknown(wanted) from error

    def spell(item: Progress) -> list[dict[str, Any]]:
        if not item.id:
            return []
        return [bar(item, PULLING.get(item.status, "Extracting" if item.total else item.status))]

    def end(result: dict[str, Any]) -> list[dict[str, Any]]:
        word = "Image is up to date" if result["digest"] in known else "Downloaded newer image"
        return [
            {"status": f"Pulling from {wanted.path}", "id": wanted.identifier},
            {"status": f"Digest: {result['digest']}"},
            {"status": f"Status: {word} for {wanted.familiar}"},
        ]

    return await stream(request, work, spell, end)


async def _import(engine: Engine, request: web.Request) -> web.StreamResponse:
    source, repository = request.query.get("fromSrc", ""), request.query.get("repo", "")
    if source != "-":
        raise InvalidArgument(f"cannot import from {source!r}: send the tar as the body (fromSrc=-)")
    wanted = str(reference(repository, request.query.get("tag", ""))) if repository else ""
    changes, message = request.query.getall("changes", []), request.query.get("message", "")
    async with upload(request, engine.spool) as file:
        return await stream(
            request,
            lambda report: engine.import_image(file, wanted, changes, message, report),
            lambda item: [],
            lambda result: [{"status": result["id"]}],
        )


async def push(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted = reference(name(request), request.query.get("tag", ""))
    credentials = of_request(request)
    await engine.inspect_image(wanted.familiar)

    async def work(report: Any) -> dict[str, Any]:
        with offering(wanted.domain, credentials):
            return await engine.push_image(str(wanted), report)

    def spell(item: Progress) -> list[dict[str, Any]]:
        return [bar(item, PUSHING.get(item.status, item.status))] if item.id else [{"status": item.status}]

    def end(result: dict[str, Any]) -> list[dict[str, Any]]:
        told = {"Tag": wanted.tag, "Digest": result["digest"], "Size": 0}
        return [{"status": f"{wanted.tag}: digest: {result['digest']} size: 0"}, {"progressDetail": {}, "aux": told}]

    return await stream(request, work, spell, end)


ROUTES = (
    Route("POST", "/images/create", create, ("fromImage", "tag", "platform", "fromSrc", "repo", "message", "changes")),
    Route("POST", "/images/{name:.+}/push", push, ("tag", "platform")),
)
