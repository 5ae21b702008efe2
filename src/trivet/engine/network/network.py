"""Networks: the noun's face. Synchronous, and may be called from any thread.

    create ──▶ attach ──▶ publish ──▶ unpublish ──▶ detach ──▶ release ──▶ remove
                  ▲                                    │
                  └──────── the instance starts again ─┘     its address stays until `release`

Records come first: what is on the host (bridges, the nftables table, namespaces) can always be made
again from them, which `repair.restore` does after a reboot or when somebody else deleted it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import Conflict, TrivetError, Unsupported
from trivet.client.schema_host import Finding
from trivet.client.schema_network import EndpointRequest, Network, NetworkRequest, Port, PortRequest
from trivet.engine.network import forwarding, guard, membership, names, publication, publish, repair
from trivet.engine.network.bridge import Bridge
from trivet.engine.network.design import alone, design, sized
from trivet.engine.network.driver import Driver
from trivet.engine.network.host import Host
from trivet.engine.network.ledger import Ledger
from trivet.engine.network.macvlan import Macvlan
from trivet.engine.network.model import (
    BRIDGE,
    DEFAULT_ENGINE,
    HOST,
    IPVLAN,
    MACVLAN,
    NONE,
    OPTIONS,
    OVERLAY,
    PREDEFINED,
    Endpoint,
    Form,
    InvalidNetwork,
    NetworkInUse,
    NetworkRecord,
    NoSuchNetwork,
    NotConnected,
    short,
)
from trivet.engine.network.nameserver import Nameserver, serves
from trivet.engine.network.none import Nothing
from trivet.engine.network.overlay import Overlay
from trivet.engine.network.path import Map
from trivet.engine.network.policing import Policies, look_into
from trivet.engine.network.relaying import Carrier
from trivet.engine.network.ruleset import table
from trivet.isolation.plan import Attachment, File, Owner
from trivet.isolation.spare import Spare
from trivet.kernel import nftables, rtnetlink
from trivet.launch.operation import AddRoute
from trivet.resolver.door import ADDRESS
from trivet.store.record import Records

if TYPE_CHECKING:
    from trivet.engine.network.fleet import Fleet

log = logging.getLogger(__name__)

# Inside the class `list` is the method.
Shown = list[Network]
Served = list[NetworkRecord]
Names = list[str]
Ports = list[Port]
Rules = list[tuple[str, bytes]]
Uses = list[Endpoint]
Findings = list[Finding]
Seen = tuple[list[NetworkRecord], list[Endpoint], list[Endpoint]]


class Networks:
    """The networks of one engine. Namespaces are kept below `run_directory`/netns."""

    def __init__(self, records: Records, engine_id: str, run_directory: Path) -> None:
        self.engine_id = engine_id
        self.table = publish.TABLE_PREFIX if engine_id == DEFAULT_ENGINE else f"trivet_{short(engine_id)}"
        self.guard = guard.Guard(self.table)
        self.labels: Callable[[str], Mapping[str, str]] = lambda instance: {}  # of an instance, by its id
        self.policies = Policies(self, records)
        self.let_go: Callable[[], bool] = lambda: False  # of what is on networks for nobody yet; was there something?
        self.moving: list[str] = []  # instances whose links are being made or taken away at this moment
        self.loaded: dict[str, Rules] = {}  # by family, what the kernel made of our tables
        self.namespaces = run_directory / "netns"
        self.ledger = Ledger(records)
        self.nameserver = Nameserver(run_directory, self.table, self._look, self.namespaces)
        self._fleet: Fleet | None = None
        self.carrier = Carrier(
            run_directory, lambda: (self.ledger.networks(), self.ledger.endpoints(), self.policies.people())
        )
        on_parent = Macvlan(self.namespaces)
        self.drivers: dict[str, Driver] = {
            BRIDGE: Bridge(self.namespaces),
            HOST: Host(),
            NONE: Nothing(),
            MACVLAN: on_parent,
            IPVLAN: on_parent,
            OVERLAY: Overlay(self.namespaces, lambda: self.fleet().tunnel()),
        }

    # networks

    def ensure_default(self) -> None:
        """Make the networks bridge, host and none where they are missing. Raises `Unsupported` without nft."""
        for name in PREDEFINED:
            if not self.ledger.has(name):
                self._create(NetworkRequest(name=name, driver=name))

    def create(self, request: NetworkRequest) -> Network:
        """Create a network. Raises `InvalidNetwork`, `AlreadyExists`, `Exhausted`, `Conflict`."""
        if request.driver not in OPTIONS:
            possible = f"{', '.join(OPTIONS)} are possible"
            known = "it exists once already" if request.driver in self.drivers else possible
            raise InvalidNetwork(request.name, f"cannot have driver {request.driver}: {known}")
        request = sized(request)
        if request.driver == OVERLAY:
            return self.fleet().create(request).show({})
        return self._create(request).show({})

    def join(self, fleet: Fleet) -> None:
        """Share networks with other hosts from now on."""
        self._fleet = fleet
        self.ledger.elsewhere = lambda network: fleet.board.elsewhere(network.id, fleet.host)
        self.ledger.given_back = lambda endpoint: fleet.free(endpoint) if self._across(endpoint.network) else None

    def fleet(self) -> Fleet:
        """Return the fleet that this host is one of. Raises `Unsupported`."""
        if not self._fleet:
            raise Unsupported(
                "networks of driver overlay need a store that all hosts share",
                hint="trivetd --store etcd://HOST:2379",
            )
        return self._fleet

    def list(self) -> Shown:
        """List the networks with their members."""
        return [record.show(self._members(record)) for record in self.ledger.networks()]

    def find(self, reference: str) -> Network:
        """Look a network up by name, id or unique prefix. Raises `NoSuchNetwork`."""
        record = self.ledger.network(reference)
        return record.show(self._members(record))

    def remove(self, reference: str) -> None:
        """Remove a network. Raises `NetworkInUse` naming an instance, `Conflict` for a predefined one."""
        if any(not member.name for member in self.ledger.members(self.ledger.network(reference))):
            self.let_go()
        with self.ledger.lock:
            record = self.ledger.network(reference)
            if record.name in PREDEFINED:
                raise Conflict(f"network {record.name} is predefined and cannot be removed")
            for member in self.ledger.members(record):
                raise NetworkInUse(record.name, member.name)
        if record.driver == OVERLAY:
            self.fleet().remove(record)
        with self.ledger.lock:
            for member in self.ledger.members(record):  # meanwhile
                raise NetworkInUse(record.name, member.name)
            self.ledger.drop(record)
            self.drivers[record.driver].remove(record)
            self.load()

    def prune(self, dry_run: bool = False, without: Collection[str] = ()) -> Names:
        """Remove the networks nobody is on, except the predefined; returns their names.

        A dry run may take the instances `without` for gone.
        """
        records = [record for record in self.ledger.networks() if record.name not in PREDEFINED]
        removed = [record.name for record in records if not self._members(record, without)]
        for name in () if dry_run else tuple(removed):
            try:
                self.remove(name)
            except (NetworkInUse, NoSuchNetwork):  # somebody was faster
                removed.remove(name)
        return removed

    # instances

    def attach(
        self,
        instance_id: str,
        instance_name: str,
        form: Form,
        wishes: Sequence[EndpointRequest] = (),
        owner: Owner | None = None,
        servers: Sequence[str] = (),
        spare: Spare | None = None,
    ) -> tuple[Attachment, ...]:
        """Connect an instance in the form its level wants; addresses it had before are kept.

        A network namespace that is made for it belongs to `owner`, which is made with it, or both are a `spare`'s.
        `servers` are asked for names that its networks don't know, none are the host's.

        Raises `NoSuchNetwork`, `NoAddressLeft`, `AlreadyExists` for a taken address, `Unsupported` for a level that
        can't be on this network. When it fails, the address is kept too: `release` frees it.
        """
        self.nameserver.leaving.discard(instance_id)
        made = membership.attach(self, instance_id, instance_name, form, wishes, owner, servers, spare)
        try:
            self._announce(instance_id)
        except BaseException:
            self.detach(instance_id)
            raise
        return made

    def connect(self, instance_id: str, instance_name: str, wish: EndpointRequest, form: Form = "netns") -> Attachment:
        """Give a running instance one network more; a machine has still to be given the interface (form `tap`).

        Raises as `attach` does, `Conflict` if it is on it already.
        """
        made = membership.connect(self, instance_id, instance_name, wish, form)
        self._announce(instance_id)
        return made

    def disconnect(self, instance_id: str, instance_name: str, network: str) -> None:
        """Take a network from a running container; ports led over it go over another one. Raises `NotConnected`."""
        record = self.ledger.network(network)
        ports = [
            port for each in self.ledger.of_instance(instance_id) if each.network == record.id for port in each.ports
        ]
        if ports:
            publication.close_ports(self, instance_id)
        membership.disconnect(self, instance_id, instance_name, record.id)
        with contextlib.suppress(Conflict):  # it has no other way out
            publication.move_ports(self, instance_id, ports)
        self.announce()

    def routes(self, instance_id: str) -> Sequence[AddRoute]:
        """Compute the default routes of an instance by the networks it is on."""
        return membership.routes(self, instance_id)

    def leave(self, instance_id: str, network: str) -> None:
        """Give up the address of an instance that doesn't run on a network it was taken from. Idempotent."""
        for endpoint in self.ledger.of_instance(instance_id):
            if endpoint.network == network:
                self.ledger.free(endpoint)

    def withdraw(self, instance_id: str) -> None:
        """Let an instance not be found by name any more: it is about to end. Until it starts again."""
        if self._named(instance_id):
            self.nameserver.leaving.add(instance_id)
            self.announce()

    def detach(self, instance_id: str) -> None:
        """Disconnect an instance from all its networks. Idempotent; its addresses stay reserved."""
        known = self._named(instance_id)
        membership.detach(self, instance_id)
        if known:
            self.announce()  # its door at the DNS server keeps the namespace alive, with the address
        self.nameserver.leaving.discard(instance_id)

    def release(self, instance_id: str) -> None:
        """Forget an instance: ports, links and addresses. Idempotent."""
        self.unpublish(instance_id)
        self.detach(instance_id)
        for endpoint in self.ledger.of_instance(instance_id):
            self.ledger.free(endpoint)

    def rename(self, instance_id: str, name: str) -> None:
        """Tell the networks an instance's new name."""
        for endpoint in self.ledger.of_instance(instance_id):
            self.ledger.save(msgspec.structs.replace(endpoint, name=name))
        if self._named(instance_id):
            self.announce()

    def announce(self, *, again: bool = False) -> None:
        """Tell the DNS server who is who now. A failure is logged: names are late, what was done is not undone."""
        if self._fleet:
            self._fleet.publish()
        try:
            self.nameserver.announce(again=again)
        except (TrivetError, OSError) as error:
            log.warning("cannot tell the DNS server: %s", error)

    def carry(self, *, again: bool = False) -> None:
        """Have the relay carry what the records say. A failure is logged, what was done is not undone."""
        try:
            self.carrier.announce(again=again)
        except (TrivetError, OSError) as error:
            log.warning("cannot tell the relay: %s", error)

    def files(
        self,
        instance_id: str,
        hostname: str,
        directory: Path,
        *,
        dns: Sequence[str] = (),
        dns_search: Sequence[str] = (),
        dns_options: Sequence[str] = (),
        extra_hosts: Sequence[str] = (),
    ) -> tuple[File, ...]:
        """Compute /etc/hosts, /etc/resolv.conf and /etc/hostname of an instance; `names.write` writes the copies."""
        shared = any(endpoint.form == "host" for endpoint in self.ledger.of_instance(instance_id))
        text = self.hosts(instance_id, hostname, extra_hosts)
        embedded = self._embedded(instance_id)
        resolver = names.resolv_conf(dns, dns_search, dns_options, shared=shared, embedded=embedded)
        return names.files(directory, hostname, text, resolver)

    def hosts(self, instance_id: str, hostname: str, extra_hosts: Sequence[str] = ()) -> bytes:
        """Compute /etc/hosts as it should be now; other members of its networks are found by DNS."""
        own = self.ledger.of_instance(instance_id)
        records = [self.ledger.network(endpoint.network) for endpoint in own]
        shared = any(endpoint.form == "host" for endpoint in own)
        return names.hosts(
            hostname,
            own[0].first if own else "",
            extra=extra_hosts,
            gateway=next((record.gateways[0] for record in records if record.bridged), "") if not shared else "",
            base=names.HOSTS.read_text(errors="replace") if shared and names.HOSTS.exists() else "",
        )

    # ports

    def publish(self, instance_id: str, ports: Sequence[PortRequest]) -> Ports:
        """Publish ports of an attached instance; host port 0 picks a free one.

        Raises `PortTaken` naming the owner, and publishes none then; `Conflict` on a network that can't publish.
        """
        if not ports:  # who publishes nothing has nothing carried
            return []
        made = publication.open_ports(self, instance_id, ports)
        if made and self._named(instance_id):
            self.announce()
        self.carry()
        return made

    def unpublish(self, instance_id: str, ports: Sequence[Port] | None = None) -> None:
        """Take back every port of an instance, or the ones named. Idempotent."""
        publication.close_ports(self, instance_id, ports)
        self.carry()

    def change_ports(
        self, instance_id: str, gone: Sequence[Port], wanted: Sequence[PortRequest], source: str = ""
    ) -> Ports:
        """Take ports back, of `source` if it is named, and publish others, in one step; raises as `publish`."""
        made = publication.change_ports(self, instance_id, gone, wanted, source)
        self.announce()
        self.carry()
        return made

    def pace(self, instance_id: str, network: str, rate_in: int, rate_out: int) -> None:
        """Limit what an instance gets and sends on a network, in bits per second. Raises `NotConnected`."""
        record = self.ledger.network(network)
        with self.ledger.lock:
            found = [each for each in self.ledger.of_instance(instance_id) if each.network == record.id]
            if not found:
                raise NotConnected(instance_id[:12], record.name)
            self.ledger.save(msgspec.structs.replace(found[0], rate_in=rate_in, rate_out=rate_out))
            self.load()

    def uses(self, instance_id: str) -> Uses:
        """List the endpoints of an instance."""
        return self.ledger.of_instance(instance_id)

    def ports(self, instance_id: str) -> Ports:
        """List what an instance has published."""
        return [port for endpoint in self.ledger.of_instance(instance_id) for port in endpoint.ports]

    # the host

    def load(self) -> None:
        """Load the engine's table, computed from the records, and let bridged traffic be forwarded."""
        with self.ledger.lock:
            forwarding.enable()
            if any(record.bridged and record.subnet6 for record in self.ledger.networks()):
                forwarding.enable(6)
            tables = self.tables()
            if self.policies.list():
                look_into([record.interface for record in self.ledger.networks() if record.bridged])
            nftables.replace(*tables)
            self.guard.forget()
            self.loaded = {table.family: nftables.rules(table.name, table.family) for table in tables}

    def tables(self) -> tuple[nftables.Table, nftables.Table]:
        """Compute the engine's tables: which packets pass, and who instances may be. `render` shows one."""
        closed = {version: forwarding.closed(version) for version in (4, 6)}
        networks, endpoints = self.ledger.networks(), self.ledger.endpoints()
        return table(self.table, networks, endpoints, closed, self.policies.people()), guard.table(
            self.table, networks, endpoints
        )

    def map(self) -> Map:
        """Gather what `path.trace` wants to know."""
        names_by_index = {link.index: link.name for link in rtnetlink.links()}
        families = (socket.AF_INET, socket.AF_INET6)
        return Map(
            networks=self.ledger.networks(),
            endpoints=self.ledger.endpoints(),
            people=self.policies.people(),
            closed={version: forwarding.closed(version) for version in (4, 6)},
            own=frozenset(each.ip for family in families for each in rtnetlink.addresses(family=family)),
            ways=[
                (route.destination, names_by_index[route.interface])
                for family in families
                for route in rtnetlink.routes(family)
                if route.interface in names_by_index
            ],
        )

    def restore(self, running: Sequence[str] | None = None) -> None:
        """Make the host fit the records again. With `running`, all other instances are disconnected."""
        repair.restore(self, running)

    def check(self, *, repaired: bool = False) -> Findings:
        """Say where host and records differ, and with `repaired` restore."""
        return repair.check(self, repaired=repaired)

    def away(self) -> Findings:
        """Say what keeps this host from its fleet."""
        if not self._fleet or not self._fleet.away:
            return []
        repair = "none: it is asked again every second; networks go on as they are"
        return [Finding(object="the fleet's store", problem=self._fleet.away, repair=repair)]

    def remove_all(self) -> None:
        """Take everything of this engine off the host: links, namespaces, bridges, table (uninstall, tests)."""
        repair.remove_all(self)

    # inside

    def _create(self, request: NetworkRequest) -> NetworkRecord:
        with self.ledger.lock, alone(), ExitStack() as undo:
            record = design(request, self.engine_id, self.ledger.networks())
            driver = self.drivers[record.driver]
            undo.enter_context(self.ledger.adding(record))
            driver.create(record)
            undo.push(lambda kind, error, trace: driver.remove(record) if error else None)
            if record.bridged:
                self.load()
        if record.internal:
            self.carry()
        return record

    def _members(self, record: NetworkRecord, without: Collection[str] = ()) -> dict[str, str]:
        members = [each for each in self.ledger.members(record) if each.name and each.instance not in without]
        here = {member.name: member.first for member in members}
        return here | (self._fleet.members(record) if self._fleet and record.driver == OVERLAY else {})

    def _look(self) -> Seen:
        return self.ledger.networks(), self.ledger.endpoints(), self._fleet.far() if self._fleet else []

    def _across(self, network: str) -> bool:
        return any(record.id == network and record.driver == OVERLAY for record in self.ledger.networks())

    def _named(self, instance_id: str) -> Served:
        """List the networks that an instance is on now and that have names."""
        records = [self.ledger.network(each.network) for each in self.ledger.of_instance(instance_id) if each.device]
        return [record for record in records if serves(record)]

    def _announce(self, instance_id: str) -> None:
        """Have a door opened; the book may have said the same before there was a namespace to open it in."""
        if self._named(instance_id):
            if self._fleet:
                self._fleet.publish()
            self.nameserver.announce(again=True)

    def _embedded(self, instance_id: str) -> str:
        """Tell where an instance finds the DNS server; "" when it has the host's own resolvers."""
        named = self._named(instance_id)
        if any(each.form == "tap" for each in self.ledger.of_instance(instance_id)):
            return next((record.gateways[0] for record in named if record.bridged), "")
        return ADDRESS if named else ""
