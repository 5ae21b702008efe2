"""Which networks an instance gets, by its level and what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import Conflict, InvalidArgument, Unsupported
from trivet.client.rate import SLOWEST
from trivet.client.schema import InstanceRequest
from trivet.client.schema_network import EndpointRequest
from trivet.engine.instance.status import Word
from trivet.engine.network.model import BRIDGE, OVERLAY
from trivet.engine.network.network import Networks
from trivet.isolation.driver import Ability
from trivet.isolation.owner import borrow
from trivet.isolation.plan import Attachment, Plan

if TYPE_CHECKING:
    from trivet.engine.instance.context import Context

DEFAULT = "bridge"
OTHER = "container:"


def choose(request: InstanceRequest, ability: Ability, networks: Networks) -> tuple[Attachment, ...]:
    """Describe the interfaces wanted; addresses come with the start. Raises what an impossible wish deserves."""
    wishes = request.networks or [EndpointRequest(network="host" if ability.network == "host" else DEFAULT)]
    found = tuple(_one(wish, ability, networks) for wish in wishes)
    names = [use.network for use in found]
    for use in found if len(found) > 1 else ():
        if use.kind in ("host", "none") or use.network.startswith(OTHER):
            others = ", ".join(name for name in names if name != use.network) or "itself"
            raise InvalidArgument(f"network {use.network} cannot be combined with {others}")
        if names.count(use.network) > 1:
            raise InvalidArgument(f"network {use.network} is given twice")
    if request.ports and found[0].kind == "none":
        raise InvalidArgument("ports cannot be published on network none")
    if request.ports and found[0].network.startswith(OTHER):
        raise InvalidArgument(
            f"ports cannot be published on network {found[0].network}", hint="publish them on that instance"
        )
    return found


def check_rate(wish: EndpointRequest, driver: str) -> None:
    """Refuse rates that can't be, or that nobody could hold an instance to."""
    if any(rate and rate < SLOWEST for rate in (wish.rate_in, wish.rate_out)):
        raise InvalidArgument(f"the rate on network {wish.network} is too small: {SLOWEST} bit per second is possible")
    if (wish.rate_in or wish.rate_out) and driver not in (BRIDGE, OVERLAY):
        raise Unsupported(f"cannot limit the rate on network {wish.network}: its packets don't pass a bridge")


def _one(wish: EndpointRequest, ability: Ability, networks: Networks) -> Attachment:
    if ability.network == "host" or wish.network.startswith(OTHER):
        check_rate(wish, "")
    if ability.network == "host":
        if wish.network != "host":
            raise Unsupported(
                f"network {wish.network} is not possible at level {ability.level}: it uses the host's own network",
                hint="leave --network out, or use --isolation container",
            )
        return Attachment(kind="host", network="host")
    if wish.network.startswith(OTHER):
        if ability.network != "netns":
            raise Unsupported(f"network {wish.network} is not possible at level {ability.level}: it shares no kernel")
        return Attachment(kind="netns", network=wish.network)
    network = networks.ledger.network(wish.network)
    check_rate(wish, network.driver)
    if network.driver == "none":
        return Attachment(kind="none", network=network.name)
    if network.driver == "host":
        if ability.network == "tap":
            raise Unsupported(
                f"network host is not possible at level {ability.level}: a machine has a network of its own",
                hint="publish ports with -p instead",
            )
        return Attachment(kind="host", network=network.name)
    return Attachment(kind=ability.network, network=network.name, mac=wish.mac)


def other(request: InstanceRequest) -> str:
    """Name the instance whose network is to be shared; "" when a network of one's own is wanted."""
    wish = request.networks[0].network if request.networks else ""
    return wish.removeprefix(OTHER) if wish.startswith(OTHER) else ""


def share(context: Context, reference: str, plan: Plan) -> Plan:
    """Put an instance into the network of a running one, with its names and its users.

    Raises `Conflict` if that doesn't run.
    """
    record = context.table.find(reference)
    if record.word not in (Word.RUNNING, Word.PAUSED):
        raise Conflict(
            f"cannot join the network of instance {record.name}: it is not running", hint=f"trivet start {record.name}"
        )
    use = record.plan.attachments[0]
    if record.request.isolation == "vm":
        raise Unsupported(f"cannot join the network of instance {record.name}: it is a machine")
    owner = borrow(record.plan.owner)
    if any(each.path for each in plan.shared) and plan.owner != owner:
        raise Conflict(f"cannot join the network of instance {record.name} and the processes of one with other users")
    if use.kind == "host":
        shared = Attachment(kind="host", network=f"{OTHER}{record.id}")
    else:
        path = use.path or f"/proc/{record.pid}/ns/net"
        shared = Attachment(kind="netns", network=f"{OTHER}{record.id}", name="", path=path)
    theirs = {"files": record.plan.files, "hostname": record.plan.hostname, "owner": owner}
    return msgspec.structs.replace(plan, attachments=(shared,), **theirs)
