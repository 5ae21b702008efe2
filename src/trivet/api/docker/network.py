"""Networks."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker import filter, link
from trivet.api.docker.duration import nanoseconds
from trivet.api.docker.endpoint import Endpoint, identity, split
from trivet.api.docker.route import Filters, Route, answer, body, filters, name, nothing
from trivet.base.error import Conflict, Denied, InvalidArgument, NotFound, TrivetError
from trivet.client.schema import Instance
from trivet.client.schema_network import Network, NetworkRequest
from trivet.engine.engine import Engine
from trivet.engine.network.model import MTU, OVERLAY, PREDEFINED, NoSuchNetwork, NotConnected


class IpamRow(msgspec.Struct, frozen=True, rename="pascal"):
    """One range."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")


class Ipam(msgspec.Struct, frozen=True, rename="pascal"):
    """How addresses are given."""

    driver: str = "default"
    config: list[IpamRow] | None = None


class Creation(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of a network's creation."""

    name: str = ""
    driver: str = ""
    internal: bool = False
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    ipam: Ipam | None = msgspec.field(default=None, name="IPAM")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")


class Member(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of connect."""

    container: str = ""
    endpoint_config: Endpoint | None = None


def shown(network: Network, instances: list[Instance]) -> dict[str, Any]:
    """Show a network with the running instances on it."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "swarm" if network.driver == OVERLAY else "local",
        "Driver": "null" if network.driver == "none" else network.driver,
        "EnableIPv4": bool(network.subnet) or not network.subnet6,
        "EnableIPv6": bool(network.subnet6),
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": _ranges(network) or None,
        },
        "Internal": network.internal,
        "Attachable": network.driver == OVERLAY,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {each.id: _member(each, network) for each in instances if _on(each, network)},
        "Options": _options(network),
        "Labels": network.labels,
    }


def _ranges(network: Network) -> list[dict[str, str]]:
    rows = ((network.subnet, network.gateway, network.ip_range), (network.subnet6, network.gateway6, ""))
    return [
        {"Subnet": subnet, **({"IPRange": part} if part else {}), "Gateway": gateway}
        for subnet, gateway, part in rows
        if subnet
    ]


def _options(network: Network) -> dict[str, str]:
    """Show the options; of the default network also what is Docker's. compose compares them with what it asked for."""
    name = {"com.docker.network.bridge.name": network.interface} if network.name == "bridge" else {}
    return {**name, **network.options}


def _on(instance: Instance, network: Network) -> bool:
    return any(use.network == network.name for use in instance.networks)


def _member(instance: Instance, network: Network) -> dict[str, str]:
    use = next(use for use in instance.networks if use.network == network.name)
    v4, v6 = (split(use, version) for version in (4, 6))
    return {
        "Name": instance.name,
        "EndpointID": identity(instance, network),
        "MacAddress": use.mac,
        "IPv4Address": f"{v4[0]}/{v4[1]}" if v4[0] else "",
        "IPv6Address": f"{v6[0]}/{v6[1]}" if v6[0] else "",
    }


class Leaving(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of disconnect."""

    container: str = ""
    force: bool = False


async def listing(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted = filters(request)
    filter.known(wanted, "dangling", "driver", "id", "label", "name", "scope", "type")
    filter.one_of(wanted, "type", ("custom", "builtin"))
    return answer([shown(network, []) for network in await engine.list_networks({}) if _wanted(network, wanted)])


def _wanted(network: Network, wanted: Filters) -> bool:
    dangling, predefined = filter.truth(wanted, "dangling"), network.name in PREDEFINED
    driver = "null" if network.driver == "none" else network.driver
    scope = "swarm" if network.driver == "overlay" else "local"
    return (
        filter.named(wanted, "name", network.name)
        and ("id" not in wanted or any(network.id.startswith(each) for each in wanted["id"]))
        and driver in wanted.get("driver", [driver])
        and scope in wanted.get("scope", [scope])
        and ("builtin" if predefined else "custom") in wanted.get("type", ["builtin", "custom"])
        and (dangling is None or dangling == (not predefined and not network.members))
        and filter.labelled(wanted, network.labels)
    )


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    network = await engine.inspect_network(name(request))
    scope = "swarm" if network.driver == "overlay" else "local"
    if request.query.get("scope", scope) not in ("", scope):
        raise NoSuchNetwork(name(request))
    running = await engine.instances.select(every=False, filters={}, size=False)
    return answer(shown(network, running))


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, Creation)
    if wish.name in PREDEFINED:
        raise Denied(f"operation is not permitted on predefined {wish.name} network")
    if wish.driver not in DRIVERS:
        raise NotFound(f"could not find plugin {wish.driver} in v1 plugin registry: plugin not found")
    made = await engine.create_network(_request(wish))
    ranges = (wish.ipam.config if wish.ipam else None) or []
    left_out = not wish.enable_ipv6 and any(":" in each.subnet for each in ranges)
    return answer({"Id": made.id, "Warning": WITHOUT_IPV6 if left_out else ""}, 201)


DRIVERS = frozenset({"", "default", "bridge", "macvlan", "ipvlan", "overlay", "host", "null"})
WITHOUT_IPV6 = "IPv6 is not enabled for the network: its IPv6 subnet was discarded"


def _request(wish: Creation) -> NetworkRequest:
    options = wish.options or {}
    ranges = (wish.ipam.config if wish.ipam else None) or []
    four = [each for each in ranges if ":" not in each.subnet]
    six = [each for each in ranges if ":" in each.subnet] if wish.enable_ipv6 else []
    if len(four) > 1 or len(six) > 1:
        raise InvalidArgument("a network has one subnet of each family")
    if not options.get(MTU, "1500").isdigit():
        raise InvalidArgument(f"invalid MTU: {options[MTU]}")
    row, row6 = (each[0] if each else IpamRow() for each in (four, six))
    return NetworkRequest(
        name=wish.name,
        driver="bridge" if wish.driver in ("", "default") else wish.driver,
        subnet=row.subnet,
        gateway=row.gateway,
        ip_range=row.ip_range,
        ipv4=wish.enable_ipv4 is not False,
        ipv6=bool(wish.enable_ipv6),
        subnet6=row6.subnet,
        gateway6=row6.gateway,
        internal=wish.internal,
        mtu=int(options.get(MTU, "1500")),
        labels=wish.labels or {},
        options=options,
    )


async def remove(engine: Engine, request: web.Request) -> web.StreamResponse:
    found = await engine.inspect_network(name(request))
    if found.name in PREDEFINED:
        raise Denied(f"{found.name} is a pre-defined network and cannot be removed")
    await engine.remove_network(found.id)
    return nothing()


async def connect(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, Member)
    network = await engine.inspect_network(name(request))
    endpoint = wish.endpoint_config or Endpoint()
    links = link.requests("", endpoint.links or ())
    await engine.instances.connect(wish.container, endpoint.request(network.name))
    if links:
        await engine.instances.link(wish.container, links)
    return nothing(200)


async def disconnect(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, Leaving)
    try:
        await engine.instances.disconnect(wish.container, name(request))
    except NotConnected as error:
        raise Conflict(error.message.replace("instance", "container", 1)) from error
    return nothing(200)


async def prune(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted, done = filters(request), []
    filter.known(wanted, "label", "label!", "until")
    until = filter.moment(wanted)
    for network in await engine.list_networks({}):
        if network.members or network.name in PREDEFINED or not filter.labelled(wanted, network.labels):
            continue
        if until and nanoseconds(network.created) > until:
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
    Route("POST", "/networks/create", create, body=Creation),
    Route("POST", "/networks/prune", prune, ("filters",)),
    Route("GET", ONE, inspect, ("verbose", "scope")),
    Route("DELETE", ONE, remove),
    Route("POST", ONE + "/connect", connect, body=Member),
    Route("POST", ONE + "/disconnect", disconnect, body=Leaving),
)
