"""Routes of secrets."""

from __future__ import annotations

from aiohttp import web

from trivet.api.native.route import Route, answer, body, nothing, ref
from trivet.client.schema_secret import Secret, SecretRequest
from trivet.engine.engine import Engine


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.create_secret(await body(request, SecretRequest)), 201)


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.list_secrets())


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.inspect_secret(ref(request)))


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.remove_secret(ref(request))
    return nothing()


ROUTES = (
    Route("POST", "/v1/secrets", create, "Keep a secret", SecretRequest, Secret),
    Route("GET", "/v1/secrets", listing, "List secrets", None, list[Secret]),
    Route("GET", "/v1/secrets/{ref}", inspect, "Describe a secret", None, Secret),
    Route("DELETE", "/v1/secrets/{ref}", remove, "Forget a secret"),
)
