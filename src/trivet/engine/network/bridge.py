"""The network `bridge`: a Linux bridge with an address, instances on it by veth pair or tap."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from trivet.base.error import Conflict
from trivet.engine.network.forwarding import ALIAS
from trivet.engine.network.ipam import mac_of
from trivet.engine.network.model import Endpoint, Form, NetworkRecord
from trivet.isolation.plan import Address, Attachment
from trivet.kernel import rtnetlink
from trivet.kernel.tap import create_tap

SYSCTLS = (
    # Lets the host reach a port published on 127.0.0.1; ruleset.py keeps everybody else away from loopback addresses.
    ("ipv4/conf/{}/route_localnet", "1"),
    # An instance that plays router must not become the host's (CVE-2020-13401).
    ("ipv6/conf/{}/accept_ra", "0"),
)

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Bridge:
    """Bridges of one engine; network namespaces of its instances are files below `namespaces`."""

    def __init__(self, namespaces: Path) -> None:
        self._namespaces = namespaces

    def form(self, network: NetworkRecord, wanted: Form) -> Form | None:
        return wanted

    def create(self, network: NetworkRecord) -> None:
        self._create_link(network)
        for name, value in (*SYSCTLS, ("ipv6/conf/{}/disable_ipv6", "0" if network.subnet6 else "1")):
            write_sysctl(name.format(network.interface), value)
        for interface in _gateways(network):
            if interface not in rtnetlink.addresses(network.interface, _FAMILIES[interface.version]):
                rtnetlink.add_address(network.interface, interface)

    def remove(self, network: NetworkRecord) -> None:
        rtnetlink.delete_link(network.interface)

    def attach(self, network: NetworkRecord, endpoint: Endpoint, ways: frozenset[int]) -> Attachment:
        if endpoint.form == "host":
            return Attachment(kind="host", network=network.name, name="")
        path = self._path(endpoint)
        if endpoint.form == "tap":
            self._attach_tap(network, endpoint)
        else:
            self._attach_namespace(network, endpoint, path)
        return Attachment(
            kind=endpoint.form,
            network=network.name,
            name=endpoint.interface,
            device=endpoint.interface if endpoint.form == "netns" else endpoint.device,
            path=str(path) if endpoint.form == "netns" else "",
            mac=endpoint.mac,
            mtu=network.mtu,
            addresses=tuple(addresses(network, endpoint, ways)),
        )

    def reattach(self, network: NetworkRecord, endpoint: Endpoint) -> bool:
        if not endpoint.device or not rtnetlink.link(endpoint.device):
            return False
        rtnetlink.set_link(endpoint.device, master=network.interface)
        rtnetlink.set_port(endpoint.device, isolated=network.apart)
        return True

    def detach(self, endpoint: Endpoint) -> None:
        if endpoint.device:
            rtnetlink.delete_link(endpoint.device)

    def problem(self, network: NetworkRecord) -> str:
        link = rtnetlink.link(network.interface)
        if not link:
            return f"bridge {network.interface} is missing"
        if not link.up:
            return f"bridge {network.interface} is down"
        for interface in _gateways(network):
            if interface not in rtnetlink.addresses(network.interface, _FAMILIES[interface.version]):
                return f"bridge {network.interface} has lost its address {interface.ip}"
        return ""

    def _create_link(self, network: NetworkRecord) -> None:
        link = rtnetlink.link(network.interface)
        if not link:
            mac = mac_of(ipaddress.ip_address(network.gateways[0]))
            rtnetlink.create_bridge(network.interface, mtu=network.mtu, mac=mac, alias=f"{ALIAS}network {network.name}")
        elif link.kind != "bridge":
            raise Conflict(f"interface {network.interface} of network {network.name} exists and is not a bridge")
        elif not link.up:
            rtnetlink.set_link(network.interface, up=True)

    def _attach_tap(self, network: NetworkRecord, endpoint: Endpoint) -> None:
        with ExitStack() as undo:
            create_tap(endpoint.device)
            undo.callback(rtnetlink.delete_link, endpoint.device)
            alias = f"{ALIAS}instance {endpoint.name}"
            rtnetlink.set_link(endpoint.device, up=True, master=network.interface, mtu=network.mtu, alias=alias)
            rtnetlink.set_port(endpoint.device, isolated=network.apart)
            undo.pop_all()

    def _attach_namespace(self, network: NetworkRecord, endpoint: Endpoint, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            rtnetlink.create_veth(
                endpoint.device,
                network.interface,
                endpoint.interface,
                descriptor,
                mac=endpoint.mac,
                mtu=network.mtu,
                alias=f"{ALIAS}instance {endpoint.name}",
                isolated=network.apart,
            )
        finally:
            os.close(descriptor)

    def _path(self, endpoint: Endpoint) -> Path:
        return self._namespaces / endpoint.instance


def device_name() -> str:
    """Invent a name for the host's end: a new one each time, as the old end may be still on its way out."""
    return f"tv{secrets.token_hex(5)}"


def _gateways(network: NetworkRecord) -> list[rtnetlink.Interface]:
    ranges = network.ranges()
    return [ipaddress.ip_interface(f"{gateway}/{subnet.partition('/')[2]}") for _, subnet, gateway in ranges]


def addresses(network: NetworkRecord, endpoint: Endpoint, ways: frozenset[int]) -> Iterator[Address]:
    """Spell the addresses of an endpoint, with the gateways of the default routes that go over its network."""
    for version, subnet, gateway in network.ranges():
        own = endpoint.address if version == 4 else endpoint.address6
        if own:
            prefix = subnet.partition("/")[2]
            yield Address(address=f"{own}/{prefix}", gateway=gateway if version in ways else "")


def write_sysctl(name: str, value: str) -> None:
    """Set a switch below /proc/sys/net, where the kernel has it."""
    path = Path("/proc/sys/net", name)
    if path.exists():  # a kernel without IPv6
        path.write_text(value)
