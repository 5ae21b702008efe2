"""The networks `macvlan` and `ipvlan`: instances are neighbours of the host on a network that it is on.

Each has an interface of its own on top of the host's `parent`: in its namespace, or a macvtap that QEMU opens. The host
and the instances don't hear one another on it (the kernel's rule), so what the host does for a bridge, no instance here
has: no published ports, no gateway of ours; packets don't pass the host's rules at all.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import ExitStack
from pathlib import Path

from trivet.base.error import Conflict, NotFound, TrivetError, Unsupported
from trivet.engine.network.bridge import addresses
from trivet.engine.network.forwarding import ALIAS
from trivet.engine.network.model import IPVLAN, MACVLAN_MODE, Endpoint, Form, InvalidNetwork, NetworkRecord
from trivet.isolation.plan import Attachment
from trivet.kernel import rtnetlink, rtstack
from trivet.kernel.namespace import inside

VLAN = re.compile(r"(?P<parent>.+)\.(?P<number>[0-9]{1,4})")
CLASSES = Path("/sys/class/net")
TAPS = Path("/dev")
LAST_VLAN = 4094
_LACKING = "this kernel has no interfaces of kind "


class Macvlan:
    """Networks on an interface of the host; network namespaces of instances are files below `namespaces`."""

    def __init__(self, namespaces: Path) -> None:
        self._namespaces = namespaces

    def form(self, network: NetworkRecord, wanted: Form) -> Form | None:
        if wanted == "tap" and network.driver == IPVLAN:
            raise Unsupported(
                f"an instance at level vm can't be on network {network.name}: a machine has a hardware address of its "
                "own, which ipvlan can't give",
                hint="use driver macvlan",
            )
        return wanted

    def create(self, network: NetworkRecord) -> None:
        """See that the parent is there and up; a VLAN's interface is made if it isn't."""
        if network.driver == IPVLAN and not rtstack.knows("ipvlan"):
            raise Unsupported(f"cannot make network {network.name}: {_LACKING}ipvlan", hint="use driver macvlan")
        parent, found = network.interface, VLAN.fullmatch(network.interface)
        if not rtnetlink.link(parent):
            below = found["parent"] if found else ""
            if found and rtnetlink.link(below) and not 1 <= int(found["number"]) <= LAST_VLAN:
                raise InvalidNetwork(network.name, f"cannot be on {parent}: VLANs have numbers from 1 to {LAST_VLAN}")
            if not found or not rtnetlink.link(below):
                missing = f"interface {below or parent} of network {network.name}"
                raise NotFound(f"{missing} does not exist on this host", hint="list them: ip link")
            try:
                rtstack.create_vlan(parent, below, int(found["number"]), f"{ALIAS}network {network.name}")
            except OSError as error:
                raise _refused(error, f"cannot make interface {parent} of network {network.name}", "vlan") from error
        rtnetlink.set_link(parent, up=True)

    def remove(self, network: NetworkRecord) -> None:
        """Remove the interface of a VLAN that we made; any other is the host's."""
        link = rtnetlink.link(network.interface)
        if link and link.kind == "vlan" and link.alias == f"{ALIAS}network {network.name}":
            rtnetlink.delete_link(network.interface)

    def attach(self, network: NetworkRecord, endpoint: Endpoint, ways: frozenset[int]) -> Attachment:
        try:
            path = self._tap(network, endpoint) if endpoint.form == "tap" else self._link(network, endpoint)
        except OSError as error:
            kind = network.driver if endpoint.form == "netns" else "macvtap"
            raise _refused(error, f"cannot connect instance {endpoint.name} to network {network.name}", kind) from error
        return Attachment(
            kind="netns" if endpoint.form == "netns" else "tap",
            network=network.name,
            name=endpoint.interface,
            device=endpoint.interface if endpoint.form == "netns" else endpoint.device,
            path=path,
            mac=endpoint.mac if network.driver != IPVLAN else "",
            mtu=network.mtu,
            addresses=tuple(addresses(network, endpoint, ways)),
        )

    def reattach(self, network: NetworkRecord, endpoint: Endpoint) -> bool:
        """An interface goes with its parent, and nothing can put it back while the instance runs."""
        if endpoint.form == "tap":
            return rtnetlink.link(endpoint.device) is not None
        return True

    def detach(self, endpoint: Endpoint) -> None:
        if endpoint.form == "tap":
            rtnetlink.delete_link(endpoint.device)
            return
        try:
            descriptor = os.open(self._path(endpoint), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            with inside(descriptor):
                rtnetlink.delete_link(endpoint.interface)
        finally:
            os.close(descriptor)

    def problem(self, network: NetworkRecord) -> str:
        link = rtnetlink.link(network.interface)
        if not link:
            return f"interface {network.interface} is missing"
        return "" if link.up else f"interface {network.interface} is down"

    def _link(self, network: NetworkRecord, endpoint: Endpoint) -> str:
        path = self._path(endpoint)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            name, parent, mtu = endpoint.interface, network.interface, network.mtu
            if network.driver == IPVLAN:
                rtstack.create_ipvlan(name, parent, mtu=mtu, namespace=descriptor)
            else:
                rtstack.create_macvlan(name, parent, mode(network), mac=endpoint.mac, mtu=mtu, namespace=descriptor)
        finally:
            os.close(descriptor)
        return str(path)

    def _tap(self, network: NetworkRecord, endpoint: Endpoint) -> str:
        with ExitStack() as undo:
            rtstack.create_macvlan(
                endpoint.device,
                network.interface,
                mode(network),
                kind="macvtap",
                mac=endpoint.mac,
                mtu=network.mtu,
            )
            undo.callback(rtnetlink.delete_link, endpoint.device)
            rtnetlink.set_link(endpoint.device, alias=f"{ALIAS}instance {endpoint.name}")
            path = _character_device(endpoint.device)
            undo.pop_all()
        return path

    def _path(self, endpoint: Endpoint) -> Path:
        return self._namespaces / endpoint.instance


def mode(network: NetworkRecord) -> str:
    """Tell how the members of a macvlan network reach one another."""
    return network.options.get(MACVLAN_MODE) or "bridge"


def _character_device(name: str) -> str:
    """Find a macvtap's device node. One of another network namespace may have the same name: the number decides."""
    link = rtnetlink.link(name)
    path = TAPS / f"tap{link.index if link else 0}"
    try:
        found = (CLASSES / name / path.name / "dev").read_text().strip()
        rdev = path.stat().st_rdev
    except OSError as error:
        raise OSError(errno.ENODEV, "its character device is not there", str(path)) from error
    if f"{os.major(rdev)}:{os.minor(rdev)}" != found:
        raise OSError(errno.ENODEV, "its character device is another interface's", str(path))
    return str(path)


def _refused(error: OSError, attempt: str, kind: str) -> TrivetError:
    if error.errno == errno.EOPNOTSUPP:
        return Unsupported(f"{attempt}: {_LACKING}{kind}")
    if error.errno in (errno.EBUSY, errno.EINVAL):
        return Conflict(f"{attempt}: its parent interface is in use otherwise, as a bridge's port or by mode passthru")
    return Conflict(f"{attempt}: {error.strerror or error}")
