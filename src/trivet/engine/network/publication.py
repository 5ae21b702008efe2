"""Published ports of instances: opening and closing them in the engine's table, and what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import Conflict
from trivet.client.schema import Port, PortRequest
from trivet.engine.network import publish
from trivet.engine.network.model import NONE, Endpoint
from trivet.engine.network.ruleset import Element, element
from trivet.kernel import nftables
from trivet.kernel.conntrack import forget_datagrams

if TYPE_CHECKING:
    from trivet.engine.network.network import Networks


def open_ports(networks: Networks, instance: str, ports: Sequence[PortRequest]) -> list[Port]:
    """Publish ports of an attached instance, all or none."""
    if not ports:
        return []
    with networks.ledger.lock, ExitStack() as undo:
        endpoint = _endpoint(networks, instance, ports[0])
        binding = networks.ledger.network(endpoint.network).binding
        ports = [port if port.host_address else msgspec.structs.replace(port, host_address=binding) for port in ports]
        chosen = publish.choose(ports, endpoint, networks.ledger.endpoints(), networks.table)
        for port in chosen:
            if item := element(endpoint, port):
                _add(networks, item)
                undo.callback(nftables.delete_elements, networks.table, [(item.map, item.key)])
        networks.ledger.set_ports(endpoint, (*endpoint.ports, *chosen))
        undo.pop_all()
    return chosen


def close_ports(networks: Networks, instance: str, ports: Sequence[Port] | None = None) -> None:
    """Take ports of an instance back, all of them unless some are named. Idempotent."""
    closed = _close(networks, instance, ports)  # takes milliseconds; until the records say so, nobody else gets them
    with networks.ledger.lock:
        for endpoint in networks.ledger.of_instance(instance):
            left = tuple(port for port in endpoint.ports if ports is not None and port not in ports)
            if left != endpoint.ports:
                networks.ledger.set_ports(endpoint, left)
        back = [item for item in closed if nftables.has_element(networks.table, *item)]
        if back:  # somebody loaded the table in between
            nftables.delete_elements(networks.table, back)


def move_ports(networks: Networks, instance: str, ports: Sequence[Port]) -> None:
    """Lead ports whose network was taken from the instance over another one. Raises `Conflict` if none can."""
    wanted = [PortRequest(**msgspec.structs.asdict(port)) for port in ports]
    open_ports(networks, instance, wanted)


def _endpoint(networks: Networks, instance: str, port: PortRequest) -> Endpoint:
    found = networks.ledger.of_instance(instance)
    for endpoint in sorted(found, key=lambda each: (not each.ports, -each.priority)):
        record = networks.ledger.network(endpoint.network)
        if record.driver != NONE and not record.internal:
            return endpoint
    where = ", ".join(networks.ledger.network(item.network).name for item in found)
    raise Conflict(
        f"cannot publish port {port.container_port}/{port.protocol}: the instance is on "
        + (f"network {where}, which has no way out" if where else "no network")
    )


def _add(networks: Networks, item: Element) -> None:
    """Add an element; when somebody flushed the table, load it anew first."""
    try:
        nftables.add_element(networks.table, item.map, item.key, item.value)
    except FileNotFoundError:
        networks.load()
        nftables.add_element(networks.table, item.map, item.key, item.value)


def _close(networks: Networks, instance: str, ports: Sequence[Port] | None) -> list[tuple[str, bytes]]:
    """Remove the elements of ports, and let clients of datagram ports look again."""
    leaving = [
        (endpoint, port)
        for endpoint in networks.ledger.of_instance(instance)
        for port in endpoint.ports
        if ports is None or port in ports
    ]
    closed = [(item.map, item.key) for endpoint, port in leaving if (item := element(endpoint, port))]
    if closed:
        nftables.delete_elements(networks.table, closed)
    for endpoint, port in leaving:
        if port.protocol == "udp" and endpoint.address:
            forget_datagrams(port.host_port, endpoint.address)
    return closed
