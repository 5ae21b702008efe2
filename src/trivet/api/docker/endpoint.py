"""What is wanted of a network, and an instance's place on it: EndpointSettings in Docker's words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from trivet.base.error import InvalidArgument
from trivet.client import rate
from trivet.client.schema import Instance
from trivet.client.schema_network import EndpointRequest, Network, NetworkUse

PLAIN = ("bridge", "host", "none")


class IpamConfig(msgspec.Struct, frozen=True):
    """Fixed addresses."""

    IPv4Address: str = ""
    IPv6Address: str = ""


class Endpoint(msgspec.Struct, frozen=True, rename="pascal"):
    """EndpointSettings."""

    aliases: list[str] | None = None
    mac_address: str = ""
    ipam_config: IpamConfig | None = msgspec.field(default=None, name="IPAMConfig")
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    links: list[str] | None = None

    def request(self, network: str, mac: str = "") -> EndpointRequest:
        """Translate."""
        fixed = self.ipam_config or IpamConfig()
        try:
            rates = rate.options(self.driver_opts or {})
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        return EndpointRequest(
            network=network,
            aliases=self.aliases or [],
            ip=fixed.IPv4Address,
            ip6=fixed.IPv6Address,
            mac=self.mac_address or mac,
            priority=self.gw_priority,
            **rates,
        )


def requests(mode: str, endpoints: Mapping[str, Endpoint | None], mac: str) -> list[EndpointRequest]:
    """Translate NetworkMode and EndpointsConfig; the network of the mode comes first."""
    nothing_said = all(name == "default" and each in (None, Endpoint()) for name, each in endpoints.items())
    if mode in ("", "default") and nothing_said and not mac:
        return []  # whatever the isolation level has
    wanted = {"bridge" if name == "default" else name: each or Endpoint() for name, each in endpoints.items()}
    first = "bridge" if mode == "default" or (mac and not mode and not wanted) else mode
    if first.startswith("container:") and endpoints:
        raise InvalidArgument("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    names = [*([first] if first else []), *(name for name in wanted if name != first)]
    return [wanted.get(name, Endpoint()).request(name, "" if number else mac) for number, name in enumerate(names)]


def links(endpoints: Mapping[str, Endpoint | None]) -> list[str]:
    """List the links wished for on whatever network."""
    return [text for each in endpoints.values() if each for text in each.links or ()]


def shown(instance: Instance, networks: Mapping[str, Network]) -> dict[str, Any]:
    """Show all networks of an instance."""
    up = instance.status in ("running", "paused")
    return {
        use.network: _shown(instance, use, networks.get(use.network), up)
        for use in instance.networks
        if not use.network.startswith("container:")
    }


def identity(instance: Instance, network: Network | None) -> str:
    """Give an endpoint an id, as Docker's have."""
    return hashlib.sha256(f"{instance.id}{network.id if network else ''}".encode()).hexdigest()


def split(use: NetworkUse, version: int) -> tuple[str, int]:
    """Give the address of a version and its prefix length, "" and 0 without one."""
    for text in use.addresses:
        address, _, length = text.partition("/")
        if (":" in address) == (version == 6):
            return address, int(length)
    return "", 0


def _shown(instance: Instance, use: NetworkUse, network: Network | None, up: bool) -> dict[str, Any]:
    wish = next((each for each in instance.request.networks if each.network == use.network), None)
    fixed = {"IPv4Address": wish.ip, "IPv6Address": wish.ip6} if wish else {}
    (address, length), (address6, length6) = (split(use, version) if up else ("", 0) for version in (4, 6))
    user_made = use.network not in PLAIN
    return {
        "IPAMConfig": {key: value for key, value in fixed.items() if value} or ({} if wish and user_made else None),
        "Links": [f"{each.name}:{each.alias}" for each in instance.request.links] or None if user_made else None,
        "Aliases": use.aliases or None,
        "MacAddress": use.mac if up else wish.mac if wish else "",
        "DriverOpts": rate.shown(use.rate_in, use.rate_out) or None,
        "GwPriority": wish.priority if wish else 0,
        "NetworkID": network.id if network else "",
        "EndpointID": identity(instance, network) if up else "",
        "Gateway": _gateway(network, 4) if address else "",
        "IPAddress": address,
        "IPPrefixLen": length,
        "IPv6Gateway": _gateway(network, 6) if address6 else "",
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": length6,
        "DNSNames": [*dict.fromkeys([instance.name, *use.aliases, instance.id[:12]])] if user_made else None,
    }


def _gateway(network: Network | None, version: int) -> str:
    if network is None or network.internal:
        return ""
    return network.gateway if version == 4 else network.gateway6
