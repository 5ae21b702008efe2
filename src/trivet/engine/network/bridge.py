"""The network `bridge`: a Linux bridge with an address, instances on it by veth pair or tap."""

from __future__ import annotations

import ipaddress
import os
import secrets
from contextlib import ExitStack
from pathlib import Path

from trivet.base.error import Conflict
from trivet.engine.network import namespace
from trivet.engine.network.forwarding import ALIAS
from trivet.engine.network.ipam import mac_of
from trivet.engine.network.model import Endpoint, Form, NetworkRecord
from trivet.isolation.plan import Address, Attachment
from trivet.kernel import rtnetlink
from trivet.kernel.tap import create_tap

SYSCTLS = (
    # Lets the host reach a port published on 127.0.0.1; ruleset.py keeps everybody else away from loopback addresses.
    ("ipv4/conf/{}/route_localnet", "1"),
    # IPv4 only for now: no link-local way around the rules, no router advertisements accepted.
    ("ipv6/conf/{}/disable_ipv6", "1"),
)
INSIDE = "eth0"


class Bridge:
    """Bridges of one engine; network namespaces of its instances are files below `namespaces`."""

    def __init__(self, namespaces: Path) -> None:
        self._namespaces = namespaces

    def form(self, network: NetworkRecord, wanted: Form) -> Form | None:
        return wanted

    def create(self, network: NetworkRecord) -> None:
        self._create_link(network)
        interface = _gateway(network)
        if interface not in rtnetlink.addresses(network.interface):
            rtnetlink.add_address(network.interface, interface)
        for name, value in SYSCTLS:
            _write_sysctl(name.format(network.interface), value)

    def remove(self, network: NetworkRecord) -> None:
        rtnetlink.delete_link(network.interface)

    def attach(self, network: NetworkRecord, endpoint: Endpoint) -> Attachment:
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
            name=INSIDE,
            device=INSIDE if endpoint.form == "netns" else endpoint.device,
            path=str(path) if endpoint.form == "netns" else "",
            mac=endpoint.mac,
            mtu=network.mtu,
            addresses=(_address(network, endpoint),),
        )

    def reattach(self, network: NetworkRecord, endpoint: Endpoint) -> bool:
        if not endpoint.device or not rtnetlink.link(endpoint.device):
            return False
        rtnetlink.set_link(endpoint.device, master=network.interface)
        rtnetlink.set_hairpin(endpoint.device)
        return True

    def detach(self, endpoint: Endpoint) -> None:
        if endpoint.form == "tap" and endpoint.device:
            rtnetlink.delete_link(endpoint.device)
        elif endpoint.form == "netns":
            namespace.remove(self._path(endpoint))  # takes the veth pair along, in the background

    def problem(self, network: NetworkRecord) -> str:
        link = rtnetlink.link(network.interface)
        if not link:
            return f"bridge {network.interface} is missing"
        if not link.up:
            return f"bridge {network.interface} is down"
        if _gateway(network) not in rtnetlink.addresses(network.interface):
            return f"bridge {network.interface} has lost its address {network.gateway}"
        return ""

    def _create_link(self, network: NetworkRecord) -> None:
        link = rtnetlink.link(network.interface)
        if not link:
            mac = mac_of(ipaddress.IPv4Address(network.gateway))
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
            rtnetlink.set_hairpin(endpoint.device)
            undo.pop_all()

    def _attach_namespace(self, network: NetworkRecord, endpoint: Endpoint, path: Path) -> None:
        with ExitStack() as undo:
            namespace.create(path, endpoint.owner)
            undo.callback(namespace.remove, path)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                rtnetlink.create_veth(
                    endpoint.device,
                    network.interface,
                    INSIDE,
                    descriptor,
                    mac=endpoint.mac,
                    mtu=network.mtu,
                    alias=f"{ALIAS}instance {endpoint.name}",
                )
            finally:
                os.close(descriptor)
            undo.pop_all()

    def _path(self, endpoint: Endpoint) -> Path:
        return self._namespaces / endpoint.instance


def device_name() -> str:
    """Invent a name for the host's end: a new one each time, as the old end may be still on its way out."""
    return f"tv{secrets.token_hex(5)}"


def _gateway(network: NetworkRecord) -> ipaddress.IPv4Interface:
    return ipaddress.IPv4Interface(f"{network.gateway}/{network.range.prefixlen}")


def _address(network: NetworkRecord, endpoint: Endpoint) -> Address:
    gateway = "" if network.internal else network.gateway
    return Address(address=f"{endpoint.address}/{network.range.prefixlen}", gateway=gateway)


def _write_sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys/net", name)
    if path.exists():  # a kernel without IPv6
        path.write_text(value)
