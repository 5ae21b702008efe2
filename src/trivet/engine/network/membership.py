"""Instances on networks: all of an instance's networks at its start, one more or one less while it runs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import msgspec

from trivet.base.error import AlreadyExists, Conflict, Exhausted, InvalidArgument
from trivet.client.schema_network import EndpointRequest
from trivet.engine.network import namespace
from trivet.engine.network.bridge import device_name
from trivet.engine.network.ipam import mac_of
from trivet.engine.network.model import BRIDGE, NONE, OVERLAY, Endpoint, Form, NetworkRecord, NotConnected
from trivet.isolation.plan import Attachment, Owner
from trivet.isolation.spare import Spare
from trivet.isolation.specification import network as in_place
from trivet.launch.operation import AddRoute

if TYPE_CHECKING:
    from trivet.engine.network.network import Networks

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,253}[a-zA-Z0-9_])?")
_INTERFACE = "eth{}"
_ATTEMPTS = 16

Pair = tuple[NetworkRecord, Endpoint]
P = ParamSpec("P")
R = TypeVar("R")


def _moving(change: Callable[Concatenate[Networks, str, P], R]) -> Callable[Concatenate[Networks, str, P], R]:
    """Let nobody mend an instance's links while they are being changed."""

    @wraps(change)
    def changed(networks: Networks, instance: str, /, *words: P.args, **named: P.kwargs) -> R:
        networks.moving.append(instance)
        try:
            return change(networks, instance, *words, **named)
        finally:
            networks.moving.remove(instance)

    return changed


@_moving
def attach(
    networks: Networks,
    instance: str,
    name: str,
    form: Form,
    wishes: Sequence[EndpointRequest],
    owner: Owner | None = None,
    servers: Sequence[str] = (),
    spare: Spare | None = None,
) -> tuple[Attachment, ...]:
    """Connect an instance that starts; when it fails, addresses are kept and links are not."""
    wanted = list(wishes) or [EndpointRequest(network=BRIDGE)]
    records = [networks.ledger.network(wish.network) for wish in wanted]
    detach(networks, instance)
    _leave(networks, instance, {record.id for record in records})
    with ExitStack() as undo:
        undo.callback(detach, networks, instance)
        forms = [networks.drivers[record.driver].form(record, form) for record in records]
        pairs = []
        for record, wish, real in zip(records, wanted, forms, strict=True):
            blank = Endpoint(instance=instance, name=name, network=record.id, form=real or form, servers=tuple(servers))
            pairs.append((record, _reserve(networks, record, blank, wish, real)))
        if any(endpoint.form == "netns" and endpoint.device for _, endpoint in pairs):
            namespace.create(path(networks, instance), owner, spare)
        ways = default_routes(pairs)
        made = [_attach(networks, record, endpoint, ways) for record, endpoint in pairs]
        undo.pop_all()
    return tuple(made)


@_moving
def connect(networks: Networks, instance: str, name: str, wish: EndpointRequest, form: Form = "netns") -> Attachment:
    """Give a running instance one network more; a container's interface is up when this returns."""
    record = networks.ledger.network(wish.network)
    real = networks.drivers[record.driver].form(record, form)
    if real != form or (form == "netns" and not path(networks, instance).exists()):
        raise Conflict(f"cannot connect running instance {name} to network {record.name}: it has no network of its own")
    if any(endpoint.network == record.id for endpoint in networks.ledger.of_instance(instance)):
        raise Conflict(f"instance {name} is already connected to network {record.name}")
    servers = next((each.servers for each in networks.ledger.of_instance(instance)), ())
    blank = Endpoint(instance=instance, name=name, network=record.id, form=form, servers=servers)
    with ExitStack() as undo:
        endpoint = _reserve(networks, record, blank, wish, real)
        undo.callback(_forget, networks, record, endpoint)
        ways = default_routes(_pairs(networks, instance))
        made = _attach(networks, record, endpoint, ways)
        if form == "netns":
            _set_up(networks, instance, made)
        undo.pop_all()
    return made


def relink(networks: Networks, record: NetworkRecord, endpoint: Endpoint) -> None:
    """Give a running container an interface again that somebody deleted; a machine's can't be given back."""
    if endpoint.form == "netns" and record.bridged and path(networks, endpoint.instance).exists():
        ways = default_routes(_pairs(networks, endpoint.instance))
        _set_up(networks, endpoint.instance, _attach(networks, record, endpoint, ways))


@_moving
def disconnect(networks: Networks, instance: str, name: str, network: str) -> None:
    """Take a network from a running instance. Raises `NotConnected`."""
    record = networks.ledger.network(network)
    for endpoint in networks.ledger.of_instance(instance):
        if endpoint.network == record.id:
            _forget(networks, record, endpoint)
            if endpoint.form == "netns":
                _route(networks, instance)
            return
    raise NotConnected(name, record.name)


@_moving
def detach(networks: Networks, instance: str) -> None:
    """Disconnect an instance from all its networks. Idempotent; its addresses stay reserved."""
    members = [endpoint for endpoint in networks.ledger.of_instance(instance) if endpoint.device]
    for endpoint in members:
        record = networks.ledger.network(endpoint.network)
        if endpoint.form == "tap" or not record.bridged:  # its hardware address is free when this returns
            networks.drivers[record.driver].detach(endpoint)
    gone = namespace.remove(path(networks, instance))  # takes what is in it along, in the background
    for endpoint in members:
        if not gone:  # nobody else may be mistaken for it; this takes long
            networks.drivers[networks.ledger.network(endpoint.network).driver].detach(endpoint)
        networks.ledger.save(msgspec.structs.replace(endpoint, device=""))
    networks.guard.drop([(endpoint, networks.ledger.network(endpoint.network)) for endpoint in members])


def path(networks: Networks, instance: str) -> Path:
    """Tell where an instance's network namespace is kept."""
    return networks.namespaces / instance


def default_routes(pairs: Sequence[Pair]) -> dict[str, frozenset[int]]:
    """Decide which network each family's default route goes over: by id, the versions (4, 6)."""
    found: dict[str, frozenset[int]] = {}
    ordered = sorted(pairs, key=lambda pair: -pair[1].priority)
    for version in (4, 6):
        for record, endpoint in ordered:
            if not record.internal and (endpoint.address if version == 4 else endpoint.address6):
                found[record.id] = found.get(record.id, frozenset()) | {version}
                break
    return found


def _attach(
    networks: Networks, record: NetworkRecord, endpoint: Endpoint, ways: dict[str, frozenset[int]]
) -> Attachment:
    try:
        if endpoint.rate_in or endpoint.rate_out or networks.policies.list():
            networks.load()
            networks.carry()
        networks.guard.add(endpoint, record)  # before there is an interface that could send
    except FileNotFoundError:
        networks.load()
    return networks.drivers[record.driver].attach(record, endpoint, ways.get(record.id, frozenset()))


def _set_up(networks: Networks, instance: str, made: Attachment) -> None:
    """Configure a new interface of a running container, without routes, which follow from all its interfaces."""
    bare = msgspec.structs.replace(
        made, addresses=tuple(msgspec.structs.replace(address, gateway="") for address in made.addresses)
    )
    namespace.configure(path(networks, instance), in_place((bare,)))
    _route(networks, instance)


def _pairs(networks: Networks, instance: str) -> list[Pair]:
    found = networks.ledger.of_instance(instance)
    return [(networks.ledger.network(endpoint.network), endpoint) for endpoint in found]


def routes(networks: Networks, instance: str) -> list[AddRoute]:
    """Compute the default routes of an instance as they should be."""
    pairs = _pairs(networks, instance)
    ways = default_routes(pairs)
    return [
        AddRoute(endpoint.interface, "", record.gateway if version == 4 else record.gateway6)
        for record, endpoint in pairs
        for version in sorted(ways.get(record.id, ()))
    ]


def _route(networks: Networks, instance: str) -> None:
    """Let the default routes of a running container go where they should."""
    namespace.configure(path(networks, instance), routes(networks, instance))


def _leave(networks: Networks, instance: str, stays: set[str]) -> None:
    """Give up the addresses on networks an instance was taken from while it didn't run."""
    for endpoint in networks.ledger.of_instance(instance):
        if endpoint.network not in stays:
            networks.ledger.free(endpoint)


def _forget(networks: Networks, record: NetworkRecord, endpoint: Endpoint) -> None:
    networks.drivers[record.driver].detach(endpoint)
    networks.ledger.free(endpoint)
    networks.guard.drop([(endpoint, record)])


def _reserve(
    networks: Networks, record: NetworkRecord, blank: Endpoint, wish: EndpointRequest, real: Form | None
) -> Endpoint:
    """Record an instance's endpoint, with the addresses it had before unless others are wished for."""
    _check(record, wish, real)
    blank = msgspec.structs.replace(
        blank, aliases=tuple(wish.aliases), priority=wish.priority, rate_in=wish.rate_in, rate_out=wish.rate_out
    )
    if real in (None, "host"):
        return networks.ledger.save(blank)
    others = networks.ledger.of_instance(blank.instance)
    known = next((item for item in others if item.network == record.id), None)
    taken = {item.interface for item in others if item.device}
    if known and (wish.ip not in ("", known.address) or wish.ip6 not in ("", known.address6)):
        networks.ledger.free(known)
        known = None
    if known:
        endpoint = msgspec.structs.replace(blank, address=known.address, address6=known.address6, mac=known.mac)
    else:
        endpoint = _claim(networks, record, blank, wish)
    return networks.ledger.save(
        msgspec.structs.replace(
            endpoint,
            mac=wish.mac.lower() or endpoint.mac or mac_of(ipaddress.ip_address(endpoint.first)),
            interface=next(name for number in range(1000) if (name := _INTERFACE.format(number)) not in taken),
            device=device_name(),
        )
    )


def _claim(networks: Networks, record: NetworkRecord, blank: Endpoint, wish: EndpointRequest) -> Endpoint:
    """Reserve addresses; on a network across hosts no other host may have them."""
    for _ in range(_ATTEMPTS):
        endpoint = _take(networks, record, blank, wish)
        if record.driver != OVERLAY:
            return endpoint
        try:
            holder = networks.fleet().claim(endpoint)
        except BaseException:
            networks.ledger.forget(endpoint)
            raise
        if not holder:
            return endpoint
        networks.ledger.forget(endpoint)
        if wish.ip or wish.ip6:
            held = wish.ip or wish.ip6
            raise AlreadyExists(f"address {held} is already in use by instance {holder} on another host")
    raise Conflict(f"cannot give an address of network {record.name}: other hosts take them all the time")


def _take(networks: Networks, record: NetworkRecord, blank: Endpoint, wish: EndpointRequest) -> Endpoint:
    """Reserve addresses here; those of nobody yet are given to who asks, when there are no others."""
    try:
        return networks.ledger.reserve(record, blank, wish.ip, wish.ip6)
    except (AlreadyExists, Exhausted):
        if not networks.let_go():
            raise
        return networks.ledger.reserve(record, blank, wish.ip, wish.ip6)


def _check(record: NetworkRecord, wish: EndpointRequest, real: Form | None) -> None:
    if wish.mac and not _MAC.fullmatch(wish.mac.lower()):
        raise InvalidArgument(f"{wish.mac!r} is not a MAC address")
    if wish.mac and int(wish.mac[:2], 16) & 1:
        raise InvalidArgument(f"{wish.mac} is the address of a group, not of an interface")
    if strange := next((alias for alias in wish.aliases if not _NAME.fullmatch(alias)), None):
        raise InvalidArgument(f"network alias {strange!r} is not a name: letters, digits, '_', '.', '-' are possible")
    if real is None and record.driver == NONE and (wish.ip or wish.ip6 or wish.mac):
        raise InvalidArgument("an instance on network none cannot have an address")
    if real == "host" and (wish.ip or wish.ip6 or wish.mac):
        fixed = wish.ip or wish.ip6 or wish.mac
        raise InvalidArgument(f"an instance that uses the host's network cannot have address {fixed} of its own")
    if wish.ip and not record.subnet:
        raise InvalidArgument(f"network {record.name} has no IPv4, so no address {wish.ip}")
    if wish.ip6 and not record.subnet6:
        raise InvalidArgument(
            f"network {record.name} has no IPv6, so no address {wish.ip6}", hint="trivet network create --ipv6"
        )
