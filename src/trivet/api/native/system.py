"""Routes of the engine itself: ping, info, events, usage, check, prune."""

from __future__ import annotations

from aiohttp import web

from trivet.api.native.route import Route, answer, body, filters, flag
from trivet.api.stream import lines
from trivet.base.clock import parse_time
from trivet.base.version import VERSION
from trivet.client.schema import Event, PruneRequest, Removed
from trivet.client.schema_host import Finding, Info, Usage
from trivet.engine.engine import Engine


async def ping(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer({"version": VERSION})


async def info(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.info())


async def usage(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.usage())


async def check(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.check(repair=flag(request, "repair")))


async def prune(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.prune(await body(request, PruneRequest)))


async def events(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted = filters(request)
    labels = [one.partition("=") for one in wanted.pop("label", ())]

    def matches(event: Event) -> bool:
        if not all(key in event.labels and (not equals or event.labels[key] == text) for key, equals, text in labels):
            return False
        facts = {"kind": event.kind, "action": event.action, "id": event.id, "name": event.name, **event.attributes}
        return all(facts.get(key) in values for key, values in wanted.items())

    stream = engine.events.follow(
        since=parse_time(request.query.get("since", "")),
        until=parse_time(request.query.get("until", "")),
        follow=request.query.get("follow", "1") == "1",
        wanted=matches,
    )
    return await lines(request, stream)


ROUTES = (
    Route("GET", "/v1/ping", ping, "Ask if the engine is there"),
    Route("GET", "/v1/info", info, "Describe engine and host", None, Info),
    Route("GET", "/v1/df", usage, "Measure what is stored", None, list[Usage]),
    Route("POST", "/v1/check", check, "Verify store and records", None, list[Finding], ("repair",)),
    Route("POST", "/v1/prune", prune, "Remove what nobody needs", PruneRequest, Removed),
    Route(
        "GET",
        "/v1/events",
        events,
        "Follow events",
        None,
        Event,
        ("since", "until", "follow", "filter"),
        "application/x-ndjson",
    ),
)
