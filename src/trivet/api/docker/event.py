"""Events in Docker's shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker import filter
from trivet.api.docker.duration import nanoseconds
from trivet.api.docker.route import Filters, Route, filters
from trivet.base.clock import now_ns
from trivet.base.error import InvalidArgument
from trivet.client.schema import Event
from trivet.engine.engine import Engine

TYPES = {"instance": "container", "system": "daemon", "build": "builder"}
ACTIONS = {
    ("instance", "remove"): "destroy",
    ("instance", "resume"): "unpause",
    ("instance", "exec-create"): "exec_create",
    ("instance", "exec"): "exec_start",
    ("instance", "exec-die"): "exec_die",
    ("image", "remove"): "delete",
    ("network", "remove"): "destroy",
    ("volume", "remove"): "destroy",
}
FILTERS = (
    *("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret"),
    *("service", "type", "volume"),
)
ATTRIBUTES = {
    "exit_code": "exitCode",
    "session": "execID",
    "isolation": "trivet.isolation",
    "old_name": "oldName",
    "image_id": "imageID",
    "reference": "imageRef",
}


def shown(event: Event) -> dict[str, Any]:
    """Show an event; containers have three older fields besides."""
    action = ACTIONS.get((event.kind, event.action), event.action)
    attributes = {**event.labels, **({} if event.kind == "volume" else {"name": event.name})}
    attributes |= {ATTRIBUTES.get(key, key): value for key, value in event.attributes.items() if key != "command"}
    if action == "rename":
        attributes["oldName"] = f"/{attributes.get('oldName', '')}"
    if action in ("exec_create", "exec_start"):
        action = f"{action}: {event.attributes.get('command', '')}"
    if action == "health_status":
        action = f"{action}: {event.attributes.get('health', '')}"
    kind = TYPES.get(event.kind, event.kind)
    common = {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": event.id, "Attributes": attributes},
        "scope": "local",
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }
    if kind != "container":
        return common
    return {"status": action, "id": event.id, "from": event.attributes.get("image", ""), **common}


def matcher(wanted: Filters) -> Callable[[Event], bool]:
    """Make a test of `filters`: values of one key are alternatives, labels must all be there."""

    def matches(event: Event) -> bool:
        row = shown(event)
        own = {event.id, event.name, event.id[:12]}
        facts = {
            "type": {row["Type"]},
            "event": {row["Action"], row["Action"].partition(":")[0]},
            "scope": {"local"},
            "daemon": own,
            **{kind: own if row["Type"] == kind else set() for kind in ("container", "image", "network", "volume")},
        }
        if row["Type"] == "container":
            facts["image"] = {row["from"], row["from"].partition(":")[0]}
        labels = {f"{key}={value}" for key, value in event.labels.items()} | set(event.labels)
        return all(
            set(values) <= labels if key == "label" else bool(facts.get(key, set()) & set(values))
            for key, values in wanted.items()
        )

    return matches


async def events(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Replay from `since` on, then follow; an end in the past ends the answer."""
    since, until = (nanoseconds(request.query.get(key, "")) for key in ("since", "until"))
    if since and until and since > until:
        told = f"`since` time ({request.query['since']}) cannot be after `until` time ({request.query['until']})"
        raise InvalidArgument(told)
    wanted = filters(request)
    filter.known(wanted, *FILTERS)
    stream = engine.events.follow(
        since=since,
        until=until,
        follow=not until or until > now_ns(),
        wanted=matcher(wanted),
    )
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    async for event in stream:
        await response.write(msgspec.json.encode(shown(event)) + b"\n")
    await response.write_eof()
    return response


ROUTES = (Route("GET", "/events", events, ("since", "until", "filters")),)
