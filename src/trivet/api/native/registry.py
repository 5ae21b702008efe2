"""Routes of what the engine knows about registries."""

from __future__ import annotations

from aiohttp import web

from trivet.api.native.route import Route, answer, body
from trivet.client.schema_image import LoginRequest
from trivet.engine.engine import Engine


async def login(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, LoginRequest)
    return answer({"file": await engine.login(wish)})


async def logout(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer({"known": await engine.logout(request.query.get("registry", ""))})


ROUTES = (
    Route(
        "POST",
        "/v1/registries/login",
        login,
        "Try a name and password at a registry, and remember them",
        LoginRequest,
        dict[str, str],
    ),
    Route(
        "POST",
        "/v1/registries/logout",
        logout,
        "Forget a registry's name and password",
        None,
        dict[str, bool],
        ("registry",),
    ),
)
