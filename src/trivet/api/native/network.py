"""Routes of networks."""

from __future__ import annotations

import msgspec
from aiohttp import web

from trivet.api.native.route import Route, answer, body, filters, flag, nothing, number, ref
from trivet.client.schema_network import ConnectRequest, EndpointRequest, Network, NetworkRequest
from trivet.client.schema_path import Way
from trivet.engine.engine import Engine


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.create_network(await body(request, NetworkRequest)), 201)


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.list_networks(filters(request)))


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(await engine.inspect_network(ref(request)))


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.remove_network(ref(request))
    return nothing()


async def connect(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, ConnectRequest)
    endpoint = wish.endpoint or EndpointRequest(network="")
    await engine.instances.connect(wish.instance, msgspec.structs.replace(endpoint, network=ref(request)))
    return nothing()


async def disconnect(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, ConnectRequest)
    await engine.instances.disconnect(wish.instance, ref(request))
    return nothing()


async def why(engine: Engine, request: web.Request) -> web.StreamResponse:
    query = request.query
    found = await engine.why_network(
        query.get("source", ""),
        query.get("target", ""),
        int(number(request, "port", 0)),
        query.get("protocol", "tcp"),
        6 if flag(request, "ipv6") else 4,
    )
    return answer(found)


ROUTES = (
    Route("POST", "/v1/networks", create, "Create a network", NetworkRequest, Network),
    Route("GET", "/v1/networks", listing, "List networks", None, list[Network], ("filter",)),
    Route("GET", "/v1/networks/{ref}", inspect, "Inspect a network", None, Network),
    Route("POST", "/v1/networks/{ref}/connect", connect, "Put an instance on a network", ConnectRequest),
    Route("POST", "/v1/networks/{ref}/disconnect", disconnect, "Take an instance from a network", ConnectRequest),
    Route(
        "GET",
        "/v1/network-path",
        why,
        "Tell what becomes of a connection",
        None,
        Way,
        ("source", "target", "port", "protocol", "ipv6"),
    ),
    Route("DELETE", "/v1/networks/{ref}", remove, "Remove a network"),
)
