"""Routes of capacity: what was promised and is used, and what was decided."""

from __future__ import annotations

from aiohttp import web

from trivet.api.native.route import Route, answer, body, number
from trivet.client.schema_capacity import Capacity, CapacityHistory, CapacityPlan, Decision, PlanRequest
from trivet.engine.engine import Engine

LIMIT = 1000


async def show(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.capacity.show())


async def think(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.capacity.think(await body(request, PlanRequest)))


async def history(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(engine.capacity.history())


async def decisions(engine: Engine, request: web.Request) -> web.StreamResponse:
    limit = min(max(int(number(request, "limit", LIMIT)), 0), LIMIT)
    return answer(engine.capacity.decisions(request.query.get("instance", ""), limit))


ROUTES = (
    Route("GET", "/v1/capacity", show, "Tell what was promised, is used, and will be", None, Capacity),
    Route("POST", "/v1/capacity/plan", think, "Tell what would come of further instances", PlanRequest, CapacityPlan),
    Route(
        "GET",
        "/v1/capacity/history",
        history,
        "Tell how the last hour was, and was forecast",
        None,
        CapacityHistory,
    ),
    Route(
        "GET",
        "/v1/capacity/decisions",
        decisions,
        "Tell what was taken from whom, given and refused, and why",
        None,
        list[Decision],
        ("instance", "limit"),
    ),
)
