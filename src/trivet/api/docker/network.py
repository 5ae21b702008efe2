"""Networks."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker.route import Route, answer, body, filters, name, nothing
from trivet.base.error import Conflict, InvalidArgument, TrivetError, Unsupported
from trivet.client.schema import Instance, Network, NetworkRequest
from trivet.engine.engine import Engine
from trivet.engine.network.model import PREDEFINED

MTU = "com.docker.network.driver.mtu"
KNOWN_OPTIONS = "com.docker.network."


class IpamRow(msgspec.Struct, frozen=True, rename="pascal"):
    """One range."""

    subnet: str = ""
    gateway: str = ""


class Ipam(msgspec.Struct, frozen=True, rename="pascal"):
    """How addresses are given."""

    driver: str = "default"
    config: list[IpamRow] = []


class Creation(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of a network's creation."""

    name: str = ""
    driver: str = ""
    internal: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    ipam: Ipam | None = msgspec.field(default=None, name="IPAM")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")


class Member(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of connect and disconnect."""

    container: str = ""
    force: bool = False


def shown(network: Network, instances: list[Instance]) -> dict[str, Any]:
    """Show a network with the running instances on it."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": "null" if network.driver == "none" else network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": network.subnet, "Gateway": network.gateway}] if network.subnet else None,
        },
        "Internal": network.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {each.id: _member(each, network) for each in instances if _on(each, network)},
        "Options": {"com.docker.network.bridge.name": network.interface} if network.interface else {},
        "Labels": network.labels,
    }


def _on(instance: Instance, network: Network) -> bool:
    return any(use.network == network.name for use in instance.networks)


def _member(instance: Instance, network: Network) -> dict[str, str]:
    use = next(use for use in instance.networks if use.network == network.name)
    return {
        "Name": instance.name,
        "EndpointID": instance.id,
        "MacAddress": use.mac,
        "IPv4Address": use.addresses[0] if use.addresses else "",
        "IPv6Address": "",
    }


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted = filters(request)
    for driver in wanted.get("driver", []):
        wanted["driver"] = ["none" if driver == "null" else driver]
    return answer([shown(network, []) for network in await engine.list_networks(wanted)])


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    network = await engine.inspect_network(name(request))
    running = await engine.instances.select(every=False, filters={}, size=False)
    return answer(shown(network, running))


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, Creation)
    options = wish.options or {}
    ranges = wish.ipam.config if wish.ipam and wish.ipam.config else [IpamRow()]
    if wish.enable_ipv6:
        raise Unsupported("IPv6 networks are not supported")
    if len(ranges) > 1:
        raise InvalidArgument("a network has one subnet")
    if not options.get(MTU, "1500").isdigit():
        raise InvalidArgument(f"invalid MTU: {options[MTU]}")
    if strange := [key for key in options if not key.startswith(KNOWN_OPTIONS)]:
        raise InvalidArgument(f"network option {strange[0]} is not known")
    made = await engine.create_network(
        NetworkRequest(
            name=wish.name,
            driver=wish.driver or "bridge",
            subnet=ranges[0].subnet,
            gateway=ranges[0].gateway,
            internal=wish.internal,
            mtu=int(options.get(MTU, "1500")),
            labels=wish.labels or {},
        )
    )
    return answer({"Id": made.id, "Warning": ""}, 201)


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    await engine.remove_network(name(request))
    return nothing()


async def connect(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Say honestly that it can't be done, unless it is so already."""
    network, instance = await _pair(engine, request)
    if not _on(instance, network):
        raise Unsupported(
            f"cannot connect container {instance.name} to network {network.name}: "
            "networks are chosen when a container is created"
        )
    return nothing(200)


async def disconnect(engine: Engine, request: web.Request) -> web.StreamResponse:
    network, instance = await _pair(engine, request)
    if _on(instance, network):
        raise Unsupported(
            f"cannot disconnect container {instance.name} from network {network.name}: "
            "networks are chosen when a container is created"
        )
    raise Conflict(f"container {instance.id} is not connected to network {network.name}")


async def _pair(engine: Engine, request: web.Request) -> tuple[Network, Instance]:
    wish = await body(request, Member)
    return await engine.inspect_network(name(request)), await engine.instances.inspect(wish.container)


async def prune(engine: Engine, request: web.Request) -> web.StreamResponse:
    done = []
    for network in await engine.list_networks(filters(request)):
        if network.members or network.name in PREDEFINED:
            continue
        try:
            await engine.remove_network(network.id)
        except TrivetError:  # somebody came onto it meanwhile
            continue
        done.append(network.name)
    return answer({"NetworksDeleted": done or None})


ONE = "/networks/{name}"
ROUTES = (
    Route("GET", "/networks", listing, ("filters",)),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune, ("filters",)),
    Route("GET", ONE, inspect),
    Route("DELETE", ONE, remove),
    Route("POST", ONE + "/connect", connect),
    Route("POST", ONE + "/disconnect", disconnect),
)
