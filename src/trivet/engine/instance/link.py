"""Links: what an instance is told of others it knows by a name of its own (`--link`).

The names stand in /etc/hosts. On the default network, where nobody is found by name, there are variables besides, as
Docker makes them: ALIAS_PORT_80_TCP_ADDR and so on for each exposed port, and ALIAS_ENV_X for each variable X.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import Conflict, InvalidArgument, NotFound
from trivet.client.schema import InstanceRequest
from trivet.client.schema_network import LinkRequest
from trivet.engine.instance.attachment import DEFAULT
from trivet.engine.instance.status import Word
from trivet.isolation.plan import Plan

if TYPE_CHECKING:
    from trivet.engine.instance.context import Context
    from trivet.engine.instance.model import InstanceRecord

ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
UNTOLD = ("HOME", "PATH", "HOSTNAME", "TERM")  # the first two as at Docker; the others nobody has set
NOWHERE = ("host", "none")


class LinkedNotRunning(Conflict):
    """A linked instance that has no address because it doesn't run."""

    def __init__(self, name: str, other: str, alias: str) -> None:
        super().__init__(
            f"cannot start instance {name}: {other}, which it is linked to as {alias}, is not running",
            hint=f"trivet start {other}",
        )
        self.words = (name, other, alias)


class NoSuchLink(NotFound):
    """A link that was never made."""

    def __init__(self, name: str, alias: str) -> None:
        super().__init__(f"instance {name} has no link {alias}")


class LinkedElsewhere(Conflict):
    """A linked instance that is on none of the networks."""

    def __init__(self, name: str, other: str) -> None:
        super().__init__(
            f"cannot start instance {name}: {other}, which it is linked to, is on none of its networks",
            hint="trivet network connect NETWORK INSTANCE",
        )


def named(context: Context, request: InstanceRequest) -> InstanceRequest:
    """Replace names of linked instances by their ids, which last. Raises `NotFound`, `InvalidArgument`."""
    if not request.links:
        return request
    if request.isolation == "process" or any(_alone(wish.network) for wish in request.networks):
        raise InvalidArgument("links need a network of one's own: the host's, another instance's and none have none")
    return msgspec.structs.replace(request, links=[found(context, wish) for wish in request.links])


def hosts(context: Context, record: InstanceRecord) -> list[str]:
    """List the names of linked instances as NAME:ADDRESS; those that don't run have none."""
    return [
        f"{name}:{address}"
        for alias, other in _others(context, record)
        if (address := _address(context, record, other))
        for name in dict.fromkeys((alias, other.name, other.id[:12]))
    ]


def tell(context: Context, record: InstanceRecord, plan: Plan) -> tuple[Plan, tuple[str, ...]]:
    """Add the variables, and name those that were added; what the instance has set itself stays.

    Raises `LinkedNotRunning`, `LinkedElsewhere`.
    """
    told: dict[str, str] = {}
    for alias, other in _others(context, record):
        if other.word not in (Word.RUNNING, Word.PAUSED):
            raise LinkedNotRunning(record.name, other.name, alias)
        address = _address(context, record, other)
        if not address:
            raise LinkedElsewhere(record.name, other.name)
        if not record.request.networks or record.request.networks[0].network == DEFAULT:
            told |= variables(record.name, alias, address, _exposed(other), _own(other))
    kept = {key: item for item in plan.program.env if (key := item.partition("=")[0]) not in record.linked}
    new = {key: f"{key}={value}" for key, value in told.items() if key not in kept}
    program = msgspec.structs.replace(plan.program, env=(*kept.values(), *new.values()))
    return msgspec.structs.replace(plan, program=program), tuple(new)


def variables(
    name: str, alias: str, address: str, ports: list[tuple[int, str]], environment: tuple[str, ...]
) -> dict[str, str]:
    """Spell the variables of one link. Pure."""
    prefix = alias.upper().replace("-", "_")
    found: dict[str, str] = {}
    for number, protocol in ports:
        where = f"{protocol}://{address}:{number}"
        found.setdefault(f"{prefix}_PORT", where)
        port = f"{prefix}_PORT_{number}_{protocol.upper()}"
        found |= {port: where, f"{port}_ADDR": address, f"{port}_PORT": str(number), f"{port}_PROTO": protocol}
    found[f"{prefix}_NAME"] = f"/{name}/{alias}"
    for item in environment:
        key, _, value = item.partition("=")
        if key not in UNTOLD:
            found[f"{prefix}_ENV_{key}"] = value
    return found


def found(context: Context, wish: LinkRequest) -> LinkRequest:
    """Look a linked instance up. Raises `NotFound`, `InvalidArgument`."""
    if not ALIAS.fullmatch(wish.alias):
        raise InvalidArgument(f"{wish.alias[:80]!r} cannot be the name of a link")
    other = context.table.find(wish.instance)
    return LinkRequest(instance=other.id, alias=wish.alias, name=other.name)


def _alone(network: str) -> bool:
    return network in NOWHERE or network.startswith("container:")


def _others(context: Context, record: InstanceRecord) -> Iterator[tuple[str, InstanceRecord]]:
    """Pair each alias with its instance; one that is gone leaves its name behind, for nobody."""
    for wish in record.request.links:
        if (other := context.table.get(wish.instance)) is not None:
            yield wish.alias, other


def _address(context: Context, record: InstanceRecord, other: InstanceRecord) -> str:
    """Find the other's address on a network both are on; "" when it isn't there now."""
    if other.word not in (Word.RUNNING, Word.PAUSED):
        return ""
    own = {each.network for each in context.networks.uses(record.id)}
    return next((each.address for each in context.networks.uses(other.id) if each.network in own), "")


def _own(other: InstanceRecord) -> tuple[str, ...]:
    """List the variables an instance has without its own links."""
    return tuple(item for item in other.plan.program.env if item.partition("=")[0] not in other.linked)


def _exposed(other: InstanceRecord) -> list[tuple[int, str]]:
    """List the ports an instance publishes or exposes, lowest first; tcp before udp."""
    found: set[tuple[int, str]] = {(port.container_port, port.protocol) for port in other.request.ports}
    for text in other.request.exposed:
        number, _, protocol = text.partition("/")
        found.add((int(number), protocol))
    return sorted(found)
