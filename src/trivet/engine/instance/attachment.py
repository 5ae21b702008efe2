"""Which network an instance gets, by its level and what was asked for."""

from __future__ import annotations

from trivet.base.error import InvalidArgument, Unsupported
from trivet.client.schema import InstanceRequest
from trivet.engine.network.network import Networks
from trivet.isolation.driver import Ability
from trivet.isolation.plan import Attachment

DEFAULT = "bridge"


def choose(request: InstanceRequest, ability: Ability, networks: Networks) -> Attachment:
    """Describe the interface wanted; addresses come with the start. Raises what an impossible wish deserves."""
    if ability.network == "host":
        if request.network not in ("", "host"):
            raise Unsupported(
                f"network {request.network} is not possible at level {ability.level}: it uses the host's own network",
                hint="leave --network out, or use --isolation container",
            )
        return Attachment(kind="host", network="host")
    network = networks.find(request.network or DEFAULT)
    if network.driver == "none":
        if request.ports:
            raise InvalidArgument("ports cannot be published on network none")
        return Attachment(kind="none", network=network.name)
    if network.driver == "host":
        if ability.network == "tap":
            raise Unsupported(
                f"network host is not possible at level {ability.level}: a machine has a network of its own",
                hint="publish ports with -p instead",
            )
        return Attachment(kind="host", network=network.name)
    return Attachment(kind=ability.network, network=network.name, mac=request.mac)
