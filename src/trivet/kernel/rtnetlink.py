"""Links, addresses and routes through NETLINK_ROUTE.

    ifinfomsg   u8 family, u8 pad, u16 type, i32 index, u32 flags, u32 change
    ifaddrmsg   u8 family, u8 prefix length, u8 flags, u8 scope, u32 index
    rtmsg       u8 family, dst_len, src_len, tos, table, protocol, scope, type, u32 flags

Every function opens a socket in the caller's network namespace (20 µs), so all may be called from
any thread. A refusal is an `OSError` whose filename is the interface. Deleting a veth explicitly
costs up to 30 ms; closing its namespace does the same in the background.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct

import msgspec

from trivet.kernel.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REQUEST,
    Request,
    Socket,
    attribute,
    attributes,
    nested,
    number,
    text,
)

IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=8BI")

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, GETADDR = 20, 22
NEWROUTE, GETROUTE = 24, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_NET_NS_PID, IFLA_IFALIAS, IFLA_NET_NS_FD = 19, 20, 28
INFO_KIND, INFO_DATA, INFO_SLAVE_KIND, INFO_SLAVE_DATA = 1, 2, 4, 5
BR_CALL_IPTABLES, BR_CALL_IP6TABLES = 36, 37
BRPORT_MODE, BRPORT_ISOLATED = 4, 33
VETH_PEER = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
IFF_UP = 1
_NO_DETECTION = 2  # IFA_F_NODAD: an IPv6 address can be used at once
_ADD = REQUEST | ACK | CREATE | EXCLUSIVE
_MAIN_TABLE, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST = 254, 3, 0, 253, 1

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface as the kernel lists it; `kind` is "bridge", "veth", "tun", ... or "" for hardware."""

    index: int
    name: str
    kind: str = ""
    up: bool = False
    master: int = 0
    mtu: int = 0
    mac: str = ""
    alias: str = ""


class Route(msgspec.Struct, frozen=True):
    """A unicast route: where to, and through which interface index (0: none)."""

    destination: Network
    interface: int


def links() -> list[Link]:
    """List the interfaces of the caller's network namespace."""
    request = Request(GETLINK, IFINFO.pack(0, 0, 0, 0, 0), REQUEST | DUMP)
    with Socket(socket.NETLINK_ROUTE) as netlink:
        return [parse_link(payload) for payload in netlink.dump(request)]


def link(name: str) -> Link | None:
    """Look up one interface; None when it is not there."""
    payload = IFINFO.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name)
    try:
        with Socket(socket.NETLINK_ROUTE) as netlink:
            for answer in netlink.dump(Request(GETLINK, payload, REQUEST, name)):
                return parse_link(answer)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    return None


def create_bridge(name: str, *, mtu: int = 1500, mac: str = "", alias: str = "") -> None:
    """Create a bridge and bring it up. `mac` keeps its address from changing with its first port."""
    extra = attribute(IFLA_ADDRESS, _mac(mac)) if mac else b""
    info = nested(IFLA_LINKINFO, attribute(INFO_KIND, "bridge"))
    body = IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP)
    payload = body + attribute(IFLA_IFNAME, name) + attribute(IFLA_MTU, mtu) + extra + info
    with Socket(socket.NETLINK_ROUTE) as netlink:
        netlink.send(Request(NEWLINK, payload, _ADD, name), _alias(name, alias))


def create_veth(
    name: str,
    master: str,
    peer: str,
    namespace: int,
    *,
    mac: str,
    mtu: int = 1500,
    alias: str = "",
    isolated: bool = False,
) -> None:
    """Create a pair: `name` here, up and on bridge `master`; `peer` in the network namespace of descriptor `namespace`.

    As for `set_port`, the bridge sends back to it what came from it.
    The peer can't be brought up in the same message (ENOTCONN); whoever enters the namespace does that.
    """
    there = IFINFO.pack(0, 0, 0, 0, 0) + b"".join(
        [
            attribute(IFLA_IFNAME, peer),
            attribute(IFLA_ADDRESS, _mac(mac)),
            attribute(IFLA_MTU, mtu),
            attribute(IFLA_NET_NS_FD, namespace),
        ]
    )
    info = nested(IFLA_LINKINFO, attribute(INFO_KIND, "veth"), nested(INFO_DATA, attribute(VETH_PEER, there)))
    here = b"".join(
        [
            IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP),
            attribute(IFLA_IFNAME, name),
            attribute(IFLA_MTU, mtu),
            attribute(IFLA_MASTER, _index(master)),
            info,
        ]
    )
    with Socket(socket.NETLINK_ROUTE) as netlink:
        netlink.send(Request(NEWLINK, here, _ADD, name), _alias(name, alias), _port(name, isolated))


def set_link(name: str, *, up: bool | None = None, master: str | None = None, mtu: int = 0, alias: str = "") -> None:
    """Change an interface: up or down, its bridge ("" takes it off), its MTU, its alias."""
    change = 0 if up is None else IFF_UP
    payload = IFINFO.pack(0, 0, _index(name), IFF_UP if up else 0, change)
    if master is not None:
        payload += attribute(IFLA_MASTER, _index(master) if master else 0)
    if mtu:
        payload += attribute(IFLA_MTU, mtu)
    if alias:
        payload += attribute(IFLA_IFALIAS, alias)
    with Socket(socket.NETLINK_ROUTE) as netlink:
        netlink.send(Request(SETLINK, payload, object=name))


def set_port(name: str, *, isolated: bool = False) -> None:
    """Let a bridge send frames back through the port they came from.

    An instance that asks for its own published port needs it where br_netfilter translates addresses inside the bridge.
    `isolated` ports of one bridge reach the bridge itself, and not one another.
    """
    with Socket(socket.NETLINK_ROUTE) as netlink:
        netlink.send(_port(name, isolated))


def filter_bridge(name: str) -> None:
    """Have the rules for IP asked about frames between ports of a bridge; needs br_netfilter."""
    data = nested(INFO_DATA, attribute(BR_CALL_IPTABLES, b"\1"), attribute(BR_CALL_IP6TABLES, b"\1"))
    info = nested(IFLA_LINKINFO, attribute(INFO_KIND, "bridge"), data)
    payload = IFINFO.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name) + info
    with Socket(socket.NETLINK_ROUTE) as netlink:
        netlink.send(Request(NEWLINK, payload, object=name))


def delete_link(name: str) -> bool:
    """Delete an interface; False when it wasn't there."""
    payload = IFINFO.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name)
    try:
        with Socket(socket.NETLINK_ROUTE) as netlink:
            netlink.send(Request(DELLINK, payload, object=name))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return False
    return True


def add_address(name: str, interface: Interface) -> None:
    """Give an interface an address with its prefix; one it already has is an `OSError` (EEXIST)."""
    packed = interface.ip.packed
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    flags = 0 if interface.version == 4 else _NO_DETECTION
    payload = IFADDR.pack(family, interface.network.prefixlen, flags, 0, _index(name))
    payload += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if interface.version == 4:
        payload += attribute(IFA_BROADCAST, interface.network.broadcast_address.packed)
    with Socket(socket.NETLINK_ROUTE) as netlink:
        netlink.send(Request(NEWADDR, payload, _ADD, f"{name} {interface}"))


def move_link(name: str, pid: int) -> None:
    """Move an interface into the network namespace of a process; it is down there, without addresses."""
    payload = IFINFO.pack(0, 0, _index(name), 0, 0) + attribute(IFLA_NET_NS_PID, pid)
    with Socket(socket.NETLINK_ROUTE) as netlink:
        netlink.send(Request(SETLINK, payload, object=name))


def addresses(name: str = "", family: int = socket.AF_INET) -> list[Interface]:
    """List the IPv4 addresses of one interface, or of all; for AF_INET6 the global ones."""
    wanted = _index(name) if name else 0
    found: list[Interface] = []
    with Socket(socket.NETLINK_ROUTE) as netlink:
        request = Request(GETADDR, IFADDR.pack(family, 0, 0, 0, 0), REQUEST | DUMP)
        for payload in netlink.dump(request):
            _, prefix, _, scope, index = IFADDR.unpack_from(payload)
            values = attributes(payload[IFADDR.size :])
            local = values.get(IFA_LOCAL) or values.get(IFA_ADDRESS)
            if family == socket.AF_INET6 and scope:
                continue
            if local and wanted in (0, index):
                found.append(ipaddress.ip_interface((local, prefix)))
    return found


def add_route(destination: Network, gateway: str = "", interface: str = "") -> None:
    """Add a unicast route; a prefix of length 0 is the default route."""
    scope = _SCOPE_UNIVERSE if gateway else _SCOPE_LINK
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    payload = RTMSG.pack(family, destination.prefixlen, 0, 0, _MAIN_TABLE, _PROTOCOL_BOOT, scope, _UNICAST, 0)
    payload += attribute(RTA_DST, destination.network_address.packed)
    if gateway:
        payload += attribute(RTA_GATEWAY, ipaddress.ip_address(gateway).packed)
    if interface:
        payload += attribute(RTA_OIF, _index(interface))
    with Socket(socket.NETLINK_ROUTE) as netlink:
        netlink.send(Request(NEWROUTE, payload, _ADD, str(destination)))


def routes(family: int = socket.AF_INET) -> list[Route]:
    """List the unicast routes of a family, of all tables."""
    found = []
    with Socket(socket.NETLINK_ROUTE) as netlink:
        request = Request(GETROUTE, RTMSG.pack(family, *[0] * 8), REQUEST | DUMP)
        for payload in netlink.dump(request):
            _, length, _, _, _, _, _, kind, _ = RTMSG.unpack_from(payload)
            values = attributes(payload[RTMSG.size :])
            if kind == _UNICAST:
                size = 4 if family == socket.AF_INET else 16
                network = ipaddress.ip_network((values.get(RTA_DST, bytes(size)), length))
                found.append(Route(network, number(values.get(RTA_OIF, bytes(4)))))
    return found


def _alias(name: str, alias: str) -> Request:
    """Say on the interface what it is for (`ip link` shows it); only a change takes an alias, a creation does not."""
    payload = IFINFO.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name) + attribute(IFLA_IFALIAS, alias)
    return Request(SETLINK, payload, object=name)


def _port(name: str, isolated: bool) -> Request:
    settings = attribute(BRPORT_MODE, b"\1") + attribute(BRPORT_ISOLATED, bytes([isolated]))
    port = nested(INFO_SLAVE_DATA, settings)
    info = nested(IFLA_LINKINFO, attribute(INFO_SLAVE_KIND, "bridge"), port)
    return Request(NEWLINK, IFINFO.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name) + info, object=name)


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name) from error


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def parse_link(payload: bytes) -> Link:
    """Read a link message."""
    _, _, index, flags, _ = IFINFO.unpack_from(payload)
    values = attributes(payload[IFINFO.size :])
    info = attributes(values.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=text(values.get(IFLA_IFNAME, b"")),
        kind=text(info.get(INFO_KIND, b"")),
        up=bool(flags & IFF_UP),
        master=number(values.get(IFLA_MASTER, bytes(4))),
        mtu=number(values.get(IFLA_MTU, bytes(4))),
        mac=values.get(IFLA_ADDRESS, b"").hex(":"),
        alias=text(values.get(IFLA_IFALIAS, b"")),
    )
