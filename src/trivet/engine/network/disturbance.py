"""What somebody else took from us: bridges, addresses, links, rules and elements that records say should be there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trivet.client.schema_host import Finding
from trivet.engine.network import guard
from trivet.engine.network.model import Endpoint
from trivet.engine.network.ruleset import element
from trivet.kernel import nftables, rtnetlink

if TYPE_CHECKING:
    from trivet.engine.network.network import Networks


def find(networks: Networks) -> Iterator[Finding]:
    """Compare host and records, but for what is being changed at this moment."""
    for record in networks.ledger.networks():
        if problem := networks.drivers[record.driver].problem(record):
            yield Finding(object=f"network {record.name}", problem=problem, repair="make the bridge anew")
    there = [each for each in networks.ledger.endpoints() if each.device and each.instance not in networks.moving]
    yield from _links(networks, there)
    for family in ("inet", guard.FAMILY):
        label = f"nftables table {family} {networks.table}"
        if not nftables.exists(networks.table, family):
            yield Finding(object=label, problem="it is not loaded", repair="load it")
        elif networks.loaded.get(family) not in (None, nftables.rules(networks.table, family)):
            yield Finding(object=label, problem="its rules were changed", repair="load it")
    if nftables.exists(networks.table):
        yield from _ports(networks)
    if nftables.exists(networks.table, guard.FAMILY):
        yield from _marks(networks, there)


def _links(networks: Networks, there: list[Endpoint]) -> Iterator[Finding]:
    links = {link.name: link for link in rtnetlink.links()}
    for endpoint in there:
        record = networks.ledger.network(endpoint.network)
        bridge = links.get(record.interface)
        link = links.get(endpoint.device)
        if not record.bridged or not bridge or (link and link.master == bridge.index):
            continue
        label = f"interface {endpoint.device} of instance {endpoint.name}"
        if link:
            yield Finding(object=label, problem=f"it is off bridge {bridge.name}", repair="put it back")
        elif endpoint.form == "netns":
            yield Finding(object=label, problem="it is missing", repair="make it anew")
        else:
            yield Finding(object=label, problem="it is missing", repair=f"none: trivet restart {endpoint.name}")


def _ports(networks: Networks) -> Iterator[Finding]:
    for endpoint in networks.ledger.endpoints():
        for port in endpoint.ports:
            item = element(endpoint, port)
            label = f"port {port.host_port}/{port.protocol} of instance {endpoint.name}"
            if item and not nftables.has_element(networks.table, item.map, item.key):
                yield Finding(object=label, problem="its rule is missing", repair="load the table")


def _marks(networks: Networks, there: list[Endpoint]) -> Iterator[Finding]:
    known = {name: set(nftables.keys(networks.table, name, guard.FAMILY)) for name in guard.SETS}
    for endpoint in there:
        marks = list(guard.marks(endpoint, networks.ledger.network(endpoint.network)))
        if any(mark.key not in known[mark.set] for mark in marks):
            problem = "its addresses are missing in the table that says who it may be"
            yield Finding(object=f"instance {endpoint.name}", problem=problem, repair="load the table")
