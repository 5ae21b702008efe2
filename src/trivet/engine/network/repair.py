"""Host and records: where they differ, and how they are brought together again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import TrivetError
from trivet.client.schema_host import Finding
from trivet.engine.network import disturbance, forwarding, guard, membership, namespace
from trivet.engine.network.design import alone, moved, rival
from trivet.engine.network.model import IPVLAN, MACVLAN, OVERLAY, Endpoint, NetworkRecord
from trivet.engine.network.publish import TABLE_PREFIX, listener
from trivet.engine.network.relaying import way
from trivet.engine.network.ruleset import element
from trivet.engine.network.wall import walls
from trivet.kernel import nftables, rtnetlink

if TYPE_CHECKING:
    from trivet.engine.network.network import Networks


log = logging.getLogger(__name__)


def restore(networks: Networks, running: Sequence[str] | None) -> None:
    """Make bridges, links, table and forwarding as the records say; let go of who is not running."""
    with networks.ledger.lock, alone():
        if running is not None:
            _let_go(networks, set(running))
        for recorded in networks.ledger.networks():
            record = _settled(networks, recorded)
            _make(networks, record)
            for endpoint in networks.ledger.members(record):
                if endpoint.device and not networks.drivers[record.driver].reattach(record, endpoint):
                    _relink(networks, record, endpoint)
        for path in stale_namespaces(networks):
            namespace.remove(path)
        networks.load()
    networks.announce(again=True)
    networks.carry(again=True)


def check(networks: Networks, *, repaired: bool) -> list[Finding]:
    """Collect what is wrong; with `repaired` restore, and tell what that mended."""
    with networks.ledger.lock:
        findings = list(_problems(networks))
        if not repaired or not findings:
            return findings
        restore(networks, None)
        left = list(_problems(networks))
    return [msgspec.structs.replace(finding, repaired=finding not in left) for finding in findings]


def broken(networks: Networks) -> bool:
    """Tell whether somebody took something away that can be put back; quick, and quiet about all else."""
    with networks.ledger.lock:
        return any(not finding.repair.startswith("none") for finding in disturbance.find(networks))


def mend(networks: Networks) -> list[Finding]:
    """Put back what somebody took away; tells what it was, and what couldn't be."""
    with networks.ledger.lock:
        findings = list(disturbance.find(networks))
        if all(finding.repair.startswith("none") for finding in findings):
            return []
        restore(networks, None)
        left = list(disturbance.find(networks))
    return [msgspec.structs.replace(finding, repaired=finding not in left) for finding in findings]


def remove_all(networks: Networks) -> None:
    """Take everything off the host, also what records don't know any more. The records stay."""
    with networks.ledger.lock:
        for endpoint in networks.ledger.endpoints():
            networks.detach(endpoint.instance)
        for path in _namespaces(networks):
            namespace.remove(path)
        for record in networks.ledger.networks():
            networks.drivers[record.driver].remove(record)
        networks.nameserver.stop()
        networks.carrier.stop()
        nftables.remove(networks.table)
        nftables.remove(networks.table, guard.FAMILY)
        if not any(name.startswith(TABLE_PREFIX) for name in nftables.tables()):
            forwarding.restore()


def stale_namespaces(networks: Networks) -> list[Path]:
    """List namespace files that belong to no attached instance."""
    attached = {endpoint.instance for endpoint in networks.ledger.endpoints() if endpoint.device}
    return [path for path in _namespaces(networks) if path.name not in attached]


def _namespaces(networks: Networks) -> list[Path]:
    return list(networks.namespaces.iterdir()) if networks.namespaces.is_dir() else []


def _let_go(networks: Networks, running: set[str]) -> None:
    for endpoint in networks.ledger.endpoints():
        if endpoint.instance not in running:
            networks.ledger.set_ports(endpoint, ())
            networks.detach(endpoint.instance)


def _make(networks: Networks, record: NetworkRecord) -> None:
    """Make a network; one that depends on what isn't ours (an interface, other hosts) must not keep the rest away."""
    try:
        networks.drivers[record.driver].create(record)
    except (TrivetError, OSError) as error:
        if record.driver not in (MACVLAN, IPVLAN, OVERLAY):
            raise
        log.warning("network %s: %s", record.name, error)
        return
    if record.driver == OVERLAY:
        networks.fleet().tell(record)


def _relink(networks: Networks, record: NetworkRecord, endpoint: Endpoint) -> None:
    try:
        membership.relink(networks, record, endpoint)
    except (TrivetError, OSError) as error:
        log.warning("cannot give instance %s its interface again: %s", endpoint.name, error)


def _settled(networks: Networks, record: NetworkRecord) -> NetworkRecord:
    """Give a network another subnet if its own was taken by somebody else while its bridge wasn't there."""
    if not (record.bridged and record.chosen) or rtnetlink.link(record.interface) or not rival(record):
        return record
    if any(endpoint.device for endpoint in networks.ledger.members(record)):
        return record  # instances that run have its addresses: `check` tells
    record = moved(record, networks.ledger.networks())
    networks.ledger.move(record)
    return record


def _problems(networks: Networks) -> Iterator[Finding]:
    for record in networks.ledger.networks():
        if record.bridged and (other := rival(record)):
            problem = f"its subnet {record.subnet} is {other}'s too: packets may go there"
            repair = f"none: remove {other}, or the network"
            yield Finding(object=f"network {record.name}", problem=problem, repair=repair)
    yield from disturbance.find(networks)
    yield from networks.away()
    if not forwarding.enabled():
        yield Finding(object="host", problem="net.ipv4.ip_forward is off", repair="turn it on")
    if any(record.bridged and record.subnet6 for record in networks.ledger.networks()) and not forwarding.enabled(6):
        yield Finding(object="host", problem="net.ipv6.conf.all.forwarding is off", repair="turn it on")
    yield from _firewall_problems(networks)
    yield from _port_problems(networks)
    if problem := networks.nameserver.check():
        yield Finding(object="DNS server", problem=problem, repair="start it")
    if problem := networks.carrier.check():
        yield Finding(object="relay of published ports", problem=problem, repair="start it")
    for path in stale_namespaces(networks):
        yield Finding(object=f"network namespace {path}", problem="it belongs to no instance", repair="remove it")


def _firewall_problems(networks: Networks) -> Iterator[Finding]:
    """A firewall that drops by default is obeyed, but whoever wonders should hear of it (Docker sets one up)."""
    for wall, strange in walls(networks.ledger.networks()):
        yield Finding(
            object=f"host firewall, {wall.chain}",
            problem="it drops by default what is forwarded: no way out for instances, no published ports",
            repair=f"none: to accept it, {wall.repair.format(strange)}",
        )


def _port_problems(networks: Networks) -> Iterator[Finding]:
    for endpoint in networks.ledger.endpoints():
        for port in endpoint.ports:
            item = element(endpoint, port)
            label = f"port {port.host_port}/{port.protocol} of instance {endpoint.name}"
            ours = ":" in port.host_address and way(endpoint, port) is not None  # the relay's socket
            if item and not ours and (program := listener(port)):
                repair = f"none: stop {program}, or publish another port"
                yield Finding(
                    object=label, problem=f"{program} listens there too and gets no connections", repair=repair
                )
