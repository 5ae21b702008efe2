"""Wire shapes of networks, of what is attached to them, and of published ports."""

from __future__ import annotations

from typing import Literal

import msgspec


class PortRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One `-p`: host port 0 picks a free one, with `last` one from `host_port` to that; address "" is every address."""

    container_port: int
    host_port: int = 0
    host_address: str = ""
    protocol: Literal["tcp", "udp"] = "tcp"
    last: int = 0

    def may_be(self, host_port: int) -> bool:
        """Tell whether this can have become a host port."""
        return self.host_port == 0 or self.host_port <= host_port <= max(self.host_port, self.last)


class EndpointRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One network wanted: `--network NAME`, or `name=NAME,alias=..,ip=..,ip6=..,mac-address=..`.

    `aliases` are names besides the instance's own. The default route goes over the network of the highest `priority`,
    the first one of several. Rates are bits per second, as the instance sees it, 0 unlimited.
    """

    network: str
    aliases: list[str] = []
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    priority: int = 0
    rate_in: int = 0
    rate_out: int = 0


class RateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How much an instance may get and send on one of its networks: bits per second, 0 unlimited, None as it is."""

    network: str
    rate_in: int | None = None
    rate_out: int | None = None


class ConnectRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`network connect` and `disconnect`."""

    instance: str
    endpoint: EndpointRequest | None = None


class LinkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`--link INSTANCE[:ALIAS]`: another instance on one of the networks is known by `alias`, too.

    The engine puts the id in the place of a name, which goes to `name`.
    """

    instance: str
    alias: str
    name: str = ""


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A published port as it is."""

    container_port: int
    protocol: str
    host_address: str
    host_port: int


class NetworkUse(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of an instance."""

    network: str
    interface: str
    addresses: list[str]
    gateway: str
    mac: str
    aliases: list[str] = []
    gateway6: str = ""
    priority: int = 0
    rate_in: int = 0
    rate_out: int = 0


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network; `members` maps instance names to addresses."""

    id: str
    name: str
    driver: str
    subnet: str
    gateway: str
    interface: str
    internal: bool
    created: str
    labels: dict[str, str] = {}
    members: dict[str, str] = {}
    subnet6: str = ""
    gateway6: str = ""
    ip_range: str = ""
    mtu: int = 1500
    options: dict[str, str] = {}


class NetworkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`network create`."""

    name: str
    driver: str = "bridge"
    subnet: str = ""
    gateway: str = ""
    ipv4: bool = True
    ipv6: bool = False
    subnet6: str = ""
    gateway6: str = ""
    ip_range: str = ""
    internal: bool = False
    mtu: int = 1500
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
