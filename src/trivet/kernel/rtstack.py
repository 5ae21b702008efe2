"""Links on top of other links: macvlan, macvtap, ipvlan, VLAN and VXLAN (ip-link(8) says what each can do).

A kernel that lacks a kind answers EOPNOTSUPP.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from trivet.kernel.netlink import ACK, CREATE, EXCLUSIVE, REQUEST, Request, Socket, attribute, nested
from trivet.kernel.rtnetlink import (
    IFF_UP,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    INFO_DATA,
    INFO_KIND,
    NEWLINK,
    SETLINK,
)

IFLA_LINK = 5
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_MODE, _VLAN_ID = 1, 1
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PROXY, _VXLAN_PORT, _VXLAN_LOCAL6 = 1, 4, 7, 11, 15, 17
_ADD = REQUEST | ACK | CREATE | EXCLUSIVE

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def create_macvlan(
    name: str, parent: str, mode: str, *, kind: str = "macvlan", mac: str, mtu: int, namespace: int = -1
) -> None:
    """Create an interface with an address of its own on `parent`: here and up, or waiting in a network namespace.

    `kind` macvtap is one with a character device, /dev/tapINDEX.
    """
    data = attribute(_MODE, MACVLAN_MODES[mode])
    _create(name, kind, data, parent=parent, mac=mac, mtu=mtu, namespace=namespace)


def create_ipvlan(name: str, parent: str, *, mtu: int, namespace: int) -> None:
    """Create an interface that shares `parent`'s hardware address, waiting in a network namespace."""
    _create(name, "ipvlan", attribute(_MODE, struct.pack("=H", 0)), parent=parent, mtu=mtu, namespace=namespace)


def knows(kind: str) -> bool:
    """Tell whether the kernel has a kind of interface on top of others; for one on top of none it says EINVAL."""
    try:
        _create("trivet-probe", kind, b"")
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP
    return True


def create_vlan(name: str, parent: str, number: int, alias: str) -> None:
    """Create an interface for the frames of `parent` that carry a VLAN's number, and bring it up."""
    _create(name, "vlan", attribute(_VLAN_ID, struct.pack("=H", number)), parent=parent, alias=alias)


def create_vxlan(name: str, number: int, local: Address, *, port: int, mtu: int, master: str, alias: str) -> None:
    """Create a tunnel that knows its peers from us alone, as a port of bridge `master`, and bring it up.

    It learns nothing from packets, and answers for neighbours that it was told of.
    """
    data = b"".join(
        [
            attribute(_VXLAN_ID, number),
            attribute(_VXLAN_LOCAL if local.version == 4 else _VXLAN_LOCAL6, local.packed),
            attribute(_VXLAN_LEARNING, b"\0"),
            attribute(_VXLAN_PROXY, b"\1"),
            attribute(_VXLAN_PORT, struct.pack("!H", port)),
        ]
    )
    _create(name, "vxlan", data, mtu=mtu, master=master, alias=alias)


def _create(
    name: str,
    kind: str,
    data: bytes,
    *,
    parent: str = "",
    mac: str = "",
    mtu: int = 0,
    master: str = "",
    namespace: int = -1,
    alias: str = "",
) -> None:
    up = IFF_UP if namespace < 0 else 0  # elsewhere it is brought up by whoever enters
    payload = IFINFO.pack(0, 0, 0, up, up) + attribute(IFLA_IFNAME, name)
    if parent:
        payload += attribute(IFLA_LINK, _index(parent))
    if mac:
        payload += attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    if mtu:
        payload += attribute(IFLA_MTU, mtu)
    if master:
        payload += attribute(IFLA_MASTER, _index(master))
    if namespace >= 0:
        payload += attribute(IFLA_NET_NS_FD, namespace)
    payload += nested(IFLA_LINKINFO, attribute(INFO_KIND, kind), nested(INFO_DATA, data))
    requests = [Request(NEWLINK, payload, _ADD, name)]
    if alias:
        label = IFINFO.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name) + attribute(IFLA_IFALIAS, alias)
        requests.append(Request(SETLINK, label, object=name))
    with Socket(socket.NETLINK_ROUTE) as netlink:
        netlink.send(*requests)


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
