"""Routes of policies between instances."""

from __future__ import annotations

import asyncio

from aiohttp import web

from trivet.api.native.route import NDJSON, Route, answer, body, flag, ref
from trivet.api.stream import lines
from trivet.client.schema_policy import Flow, PolicyOutcome, PolicyRequest
from trivet.engine.engine import Engine


async def apply(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, PolicyRequest)
    policies = engine.context.networks.policies
    return answer(await asyncio.to_thread(policies.apply, wish, dry_run=flag(request, "dry_run")))


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(engine.context.networks.policies.list())


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(engine.context.networks.policies.find(ref(request)))


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    policies = engine.context.networks.policies
    return answer(await asyncio.to_thread(policies.remove, ref(request), dry_run=flag(request, "dry_run")))


async def flows(engine: Engine, request: web.Request) -> web.StreamResponse:
    return await lines(request, engine.flows.follow(follow=flag(request, "follow")))


ONE = "/v1/network-policies/{ref}"
ROUTES = (
    Route("POST", "/v1/network-policies", apply, "Put a policy in force", PolicyRequest, PolicyOutcome, ("dry_run",)),
    Route("GET", "/v1/network-policies", listing, "List policies", None, list[PolicyRequest]),
    Route("GET", ONE, inspect, "Inspect a policy", None, PolicyRequest),
    Route("DELETE", ONE, remove, "Take a policy out of force", None, PolicyOutcome, ("dry_run",)),
    Route("GET", "/v1/network-flows", flows, "Read the log of flows", None, Flow, ("follow",), NDJSON),
)
