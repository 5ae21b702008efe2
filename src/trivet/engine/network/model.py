"""The records of networks: what exists, and who is on it."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Literal

import msgspec

from trivet.base.error import AlreadyExists, Conflict, InvalidArgument, NotFound
from trivet.client.schema import Network, Port
from trivet.isolation.plan import Owner

Form = Literal["netns", "tap", "host"]

BRIDGE, HOST, NONE = "bridge", "host", "none"
DEFAULT_ENGINE = "default"
PREDEFINED = (BRIDGE, HOST, NONE)


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network. `subnet` and `gateway` are CIDR and address, `interface` the bridge; empty for host and none.

    `chosen` says that nobody asked for this very subnet: it may be another one after the network was off the host.
    """

    id: str
    name: str
    driver: str
    created: str
    chosen: bool = False
    subnet: str = ""
    gateway: str = ""
    interface: str = ""
    internal: bool = False
    mtu: int = 1500
    labels: dict[str, str] = {}

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
            interface=self.interface,
            internal=self.internal,
            created=self.created,
            labels=self.labels,
            members=members,
        )


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An instance on a network; kept from its first attachment until the instance is removed.

    `address` is reserved for it all that time, "" where the instance uses the host's own network.
    `device` is the host's end (veth or tap) while it is attached, `ports` what is published now. `owner` is the user
    namespace that a network namespace of its own belongs to.
    """

    instance: str
    name: str
    network: str
    form: Form
    address: str = ""
    mac: str = ""
    device: str = ""
    ports: tuple[Port, ...] = ()
    owner: Owner | None = None

    @property
    def key(self) -> str:
        """The key of the record."""
        return f"{self.instance}/{self.network}"

    @property
    def claim(self) -> str | None:
        """The name of the record: unique, so that an address can't be given twice."""
        return f"{self.network}/{self.address}" if self.address else None


class NoSuchNetwork(NotFound):
    """A reference that names no network."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"no such network: {reference}", hint="list them: trivet network ls")


class NetworkInUse(Conflict):
    """A network that has members can't be removed."""

    def __init__(self, network: str, instance: str) -> None:
        super().__init__(f"network {network} is in use by instance {instance}", hint=f"trivet rm {instance}")


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
