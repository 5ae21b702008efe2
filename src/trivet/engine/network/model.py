"""The records of networks: what exists, and who is on it."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Literal

import msgspec

from trivet.base.error import AlreadyExists, Conflict, InvalidArgument, NotFound
from trivet.client.schema_network import Network, Port

Form = Literal["netns", "tap", "host"]

BRIDGE, HOST, NONE, MACVLAN, IPVLAN, OVERLAY = "bridge", "host", "none", "macvlan", "ipvlan", "overlay"
DEFAULT_ENGINE = "default"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
COMMUNICATION = "com.docker.network.bridge.enable_icc"
BINDING = "com.docker.network.bridge.host_binding_ipv4"
BRIDGE_NAME = "com.docker.network.bridge.name"
MTU = "com.docker.network.driver.mtu"
SOURCE_CHECK = "trivet.source_check"
PARENT, MACVLAN_MODE, IPVLAN_MODE = "parent", "macvlan_mode", "ipvlan_mode"
VNI = "com.docker.network.driver.overlay.vxlanid_list"
OPTIONS = {
    BRIDGE: (MASQUERADE, COMMUNICATION, BINDING, BRIDGE_NAME, MTU, SOURCE_CHECK),
    MACVLAN: (PARENT, MACVLAN_MODE, MTU),
    IPVLAN: (PARENT, IPVLAN_MODE, MTU),
    OVERLAY: (MASQUERADE, MTU, VNI, SOURCE_CHECK),
}
FALSE = ("false", "0", "f", "F", "False", "FALSE")
PREDEFINED = (BRIDGE, HOST, NONE)


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network. `subnet` and `gateway` are CIDR and address, `interface` the bridge; empty for host and none.

    On macvlan and ipvlan `interface` is the host's that instances are on top of, and `gateway` a neighbour's address.
    `chosen` says that nobody asked for this very subnet: it may be another one after the network was off the host.
    `subnet6` and `gateway6` are "" without IPv6, `subnet` and `gateway` without IPv4; IPv4 addresses are given out of
    `ip_range` if there is one.
    """

    id: str
    name: str
    driver: str
    created: str
    chosen: bool = False
    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""
    ip_range: str = ""
    interface: str = ""
    internal: bool = False
    mtu: int = 1500
    labels: dict[str, str] = {}
    options: dict[str, str] = {}

    @property
    def range(self) -> ipaddress.IPv4Network:
        """The subnet as a value."""
        return ipaddress.IPv4Network(self.subnet)

    def show(self, members: dict[str, str]) -> Network:
        """Render for the API."""
        return Network(
            id=self.id,
            name=self.name,
            driver=self.driver,
            subnet=self.subnet,
            gateway=self.gateway,
            ip_range=self.ip_range,
            interface=self.interface,
            internal=self.internal,
            created=self.created,
            labels=self.labels,
            members=members,
            subnet6=self.subnet6,
            gateway6=self.gateway6,
            mtu=self.mtu,
            options=self.options,
        )

    @property
    def bridged(self) -> bool:
        """Whether the host is on it by a bridge of ours, with the gateway's address."""
        return self.driver in (BRIDGE, OVERLAY)

    @property
    def masquerade(self) -> bool:
        """Whether what leaves gets the host's address."""
        return self.options.get(MASQUERADE, "true") not in FALSE

    @property
    def apart(self) -> bool:
        """Whether members can't reach one another (inter-container communication is off)."""
        return self.options.get(COMMUNICATION, "true") in FALSE

    @property
    def guarded(self) -> bool:
        """Whether members may send only from their own addresses; on macvlan and ipvlan nobody looks."""
        return self.driver not in (MACVLAN, IPVLAN) and self.options.get(SOURCE_CHECK, "true") not in FALSE

    @property
    def binding(self) -> str:
        """The host address that ports are published on when none is said."""
        return self.options.get(BINDING, "")

    @property
    def gateways(self) -> list[str]:
        """The gateways, IPv4 first."""
        return [gateway for _, _, gateway in self.ranges()]

    def ranges(self) -> list[tuple[int, str, str]]:
        """List (version, subnet, gateway) of the families the network has."""
        rows = ((4, self.subnet, self.gateway), (6, self.subnet6, self.gateway6))
        return [row for row in rows if row[1]]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An instance on a network; kept from its first attachment until the instance is removed.

    The `name` of one that was made ahead is "" until somebody gets it: no list and no nameserver tells of it.
    `address` and `address6` are reserved for it all that time; both are "" where it uses the host's own network.
    `device` is the host's end (veth or tap) while it is attached, `interface` the instance's; `ports` is what is
    published now. `servers` are asked for names that the network doesn't know, none are the host's. Rates are bits per
    second, 0 unlimited.
    """

    instance: str
    name: str
    network: str
    form: Form
    address: str = ""
    address6: str = ""
    mac: str = ""
    interface: str = ""
    device: str = ""
    aliases: tuple[str, ...] = ()
    priority: int = 0
    ports: tuple[Port, ...] = ()
    servers: tuple[str, ...] = ()
    rate_in: int = 0
    rate_out: int = 0

    @property
    def key(self) -> str:
        """The key of the record."""
        return f"{self.instance}/{self.network}"

    @property
    def names(self) -> tuple[str, ...]:
        """What other members of its network call it."""
        return (self.name, *self.aliases, self.instance[:12])

    @property
    def claim(self) -> str | None:
        """The name of the record: unique, so that an address can't be given twice."""
        return f"{self.network}/{self.first}" if self.first else None

    @property
    def first(self) -> str:
        """One of its addresses, IPv4 if it has that; "" where it uses the host's own network."""
        return self.address or self.address6


class NoSuchNetwork(NotFound):
    """A reference that names no network."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"no such network: {reference}", hint="list them: trivet network ls")


class NotConnected(Conflict):
    """An instance that was to leave a network it isn't on."""

    def __init__(self, instance: str, network: str) -> None:
        super().__init__(f"instance {instance} is not connected to network {network}")


class NetworkInUse(Conflict):
    """A network that has members can't be removed."""

    def __init__(self, network: str, instance: str) -> None:
        super().__init__(
            f"network {network} is in use by instance {instance}",
            hint=f"trivet network disconnect {network} {instance}, or trivet rm {instance}",
        )


class InvalidNetwork(InvalidArgument):
    """A network that can't be as asked for."""

    def __init__(self, network: str, cause: str) -> None:
        super().__init__(f"network {network} {cause}")


class PortTaken(AlreadyExists):
    """A host port that somebody else has."""

    def __init__(self, address: str, port: int, protocol: str, owner: str) -> None:
        super().__init__(
            f"port {port}/{protocol} on {address or '0.0.0.0'} is already used by {owner}",
            hint="choose another host port, or 0 for a free one",
        )


def short(*parts: str) -> str:
    """Hash names to ten hexadecimal digits, for interface names (at most 15 bytes)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]
