"""Published ports of instances: opening, closing and handing them over in the engine's table, and what is recorded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import Conflict
from trivet.client.schema_network import Port, PortRequest
from trivet.engine.network import publish
from trivet.engine.network.model import HOST, IPVLAN, MACVLAN, Endpoint
from trivet.engine.network.ruleset import Element, element
from trivet.kernel import nftables
from trivet.kernel.conntrack import forget_datagrams

if TYPE_CHECKING:
    from trivet.engine.network.network import Networks


def open_ports(networks: Networks, instance: str, ports: Sequence[PortRequest]) -> list[Port]:
    """Publish ports of an attached instance, all or none."""
    return change_ports(networks, instance, (), ports) if ports else []


def change_ports(
    networks: Networks, instance: str, gone: Sequence[Port], wanted: Sequence[PortRequest], source: str = ""
) -> list[Port]:
    """Take ports back, of `source` if one is named, and publish others, in one step: all or nothing.

    Returns what is new; a port that changes hands is never closed in between.
    """
    with networks.ledger.lock:
        givers = networks.ledger.of_instance(source or instance)
        after = {each.key: tuple(port for port in each.ports if port not in gone) for each in givers}
        chosen: list[Port] = []
        if wanted:
            endpoint = _endpoint(networks, instance, wanted[0])
            binding = networks.ledger.network(endpoint.network).binding
            wanted = [
                each if each.host_address else msgspec.structs.replace(each, host_address=binding) for each in wanted
            ]
            others = [
                msgspec.structs.replace(each, ports=after.get(each.key, each.ports))
                for each in networks.ledger.endpoints()
            ]
            chosen = publish.choose(
                wanted, endpoint, others, networks.table, {(port.protocol, port.host_port) for port in gone}
            )
            after[endpoint.key] = (*after.get(endpoint.key, endpoint.ports), *chosen)
        changed = [each for each in networks.ledger.endpoints() if after.get(each.key, each.ports) != each.ports]
        now = [msgspec.structs.replace(each, ports=after[each.key]) for each in changed]
        old, new = set(_elements(changed)), set(_elements(now))
        _exchange(networks, old - new, new - old)
        try:
            for each in now:
                networks.ledger.save(each)
        except BaseException:
            _exchange(networks, new - old, old - new)
            raise
    _forget((each, port) for each in givers for port in each.ports if port in gone)
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
        if (record.bridged or record.driver == HOST) and not record.internal:
            return endpoint
    records = [networks.ledger.network(item.network) for item in found]
    where = ", ".join(record.name for record in records)
    if beside := next((record for record in records if record.driver in (MACVLAN, IPVLAN)), None):
        raise Conflict(
            f"cannot publish port {port.container_port}/{port.protocol}: on network {beside.name} of driver "
            f"{beside.driver} packets don't pass the host",
            hint="everybody on that network reaches the instance at its own address",
        )
    raise Conflict(
        f"cannot publish port {port.container_port}/{port.protocol}: the instance is on "
        + (f"network {where}, which has no way out" if where else "no network")
    )


def _elements(endpoints: Iterable[Endpoint]) -> list[Element]:
    return [item for each in endpoints for port in each.ports if (item := element(each, port))]


def _exchange(networks: Networks, old: Iterable[Element], new: Iterable[Element]) -> None:
    """Change the table; when somebody flushed it, load it anew first."""
    gone, come = [(each.map, each.key) for each in old], [(each.map, each.key, each.value) for each in new]
    if not gone and not come:
        return
    try:
        nftables.exchange_elements(networks.table, gone, come)
    except FileNotFoundError:
        networks.load()
        nftables.exchange_elements(networks.table, gone, come)


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
    _forget(leaving)
    return closed


def _forget(leaving: Iterable[tuple[Endpoint, Port]]) -> None:
    for endpoint, port in leaving:
        for address in filter(None, (endpoint.address, endpoint.address6)):
            if port.protocol == "udp":
                forget_datagrams(port.host_port, address)
