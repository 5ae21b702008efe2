"""Networks: the noun's face. Synchronous, and may be called from any thread.

    create ──▶ attach ──▶ publish ──▶ unpublish ──▶ detach ──▶ release ──▶ remove
                  ▲                                    │
                  └──────── the instance starts again ─┘     its address stays until `release`

Records come first: what is on the host (bridges, the nftables table, namespaces) can always be made
again from them, which `repair.restore` does after a reboot or when somebody else deleted it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from trivet.base.error import Conflict, InvalidArgument
from trivet.client.schema import Finding, Network, NetworkRequest, Port, PortRequest
from trivet.engine.network import forwarding, names, publish, repair
from trivet.engine.network.bridge import Bridge, device_name
from trivet.engine.network.design import alone, design
from trivet.engine.network.driver import Driver
from trivet.engine.network.host import Host
from trivet.engine.network.ipam import mac_of
from trivet.engine.network.ledger import Ledger
from trivet.engine.network.model import (
    BRIDGE,
    DEFAULT_ENGINE,
    HOST,
    NONE,
    PREDEFINED,
    Endpoint,
    Form,
    InvalidNetwork,
    NetworkInUse,
    NetworkRecord,
    short,
)
from trivet.engine.network.none import Nothing
from trivet.engine.network.ruleset import Element, element, table
from trivet.isolation.plan import Attachment, File, Owner
from trivet.kernel import nftables
from trivet.kernel.conntrack import forget_datagrams
from trivet.store.record import Records

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

# Inside the class `list` is the method.
Shown = list[Network]
Names = list[str]
Ports = list[Port]
Findings = list[Finding]
Elements = list[tuple[str, bytes]]


class Networks:
    """The networks of one engine. Namespaces are kept below `run_directory`/netns."""

    def __init__(self, records: Records, engine_id: str, run_directory: Path) -> None:
        self.engine_id = engine_id
        self.table = publish.TABLE_PREFIX if engine_id == DEFAULT_ENGINE else f"trivet_{short(engine_id)}"
        self.namespaces = run_directory / "netns"
        self.ledger = Ledger(records)
        self.drivers: dict[str, Driver] = {BRIDGE: Bridge(self.namespaces), HOST: Host(), NONE: Nothing()}

    # networks

    def ensure_default(self) -> None:
        """Make the networks bridge, host and none where they are missing. Raises `Unsupported` without nft."""
        for name in PREDEFINED:
            if not self.ledger.has(name):
                self._create(NetworkRequest(name=name, driver=name))

    def create(self, request: NetworkRequest) -> Network:
        """Create a network. Raises `InvalidNetwork`, `AlreadyExists`, `Exhausted`, `Conflict`."""
        if request.driver != BRIDGE:
            known = "it exists once already" if request.driver in self.drivers else "only bridge can be created"
            raise InvalidNetwork(request.name, f"cannot have driver {request.driver}: {known}")
        return self._create(request).show({})

    def list(self) -> Shown:
        """List the networks with their members."""
        return [record.show(self._members(record)) for record in self.ledger.networks()]

    def find(self, reference: str) -> Network:
        """Look a network up by name, id or unique prefix. Raises `NoSuchNetwork`."""
        record = self.ledger.network(reference)
        return record.show(self._members(record))

    def remove(self, reference: str) -> None:
        """Remove a network. Raises `NetworkInUse` naming an instance, `Conflict` for a predefined one."""
        with self.ledger.lock:
            record = self.ledger.network(reference)
            if record.name in PREDEFINED:
                raise Conflict(f"network {record.name} is predefined and cannot be removed")
            for member in self.ledger.members(record):
                raise NetworkInUse(record.name, member.name)
            self.ledger.drop(record)
            self.drivers[record.driver].remove(record)
            self.load()

    def prune(self, dry_run: bool = False) -> Names:
        """Remove the networks nobody is on, except the predefined; returns their names."""
        with self.ledger.lock:
            unused = [record.name for record in self.ledger.networks() if not self.ledger.members(record)]
            removed = [name for name in unused if name not in PREDEFINED]
            for name in () if dry_run else removed:
                self.remove(name)
        return removed

    # instances

    def attach(
        self,
        network: str,
        instance_id: str,
        instance_name: str,
        form: Form,
        ip: str = "",
        mac: str = "",
        owner: Owner | None = None,
    ) -> Attachment:
        """Connect an instance in the form its level wants; the address it had before is kept.

        A network namespace that is made for it belongs to `owner`, which is made with it.

        Raises `NoSuchNetwork`, `NoAddressLeft`, `AlreadyExists` for a taken address, `Unsupported` for a level that
        can't be on this network. When it fails, the address is kept too: `release` frees it.
        """
        record = self.ledger.network(network or BRIDGE)
        driver = self.drivers[record.driver]
        real = driver.form(record, form)
        blank = Endpoint(instance=instance_id, name=instance_name, network=record.id, form=real or form, owner=owner)
        if real is None:
            return driver.attach(record, self.ledger.save(blank))
        if real == "host":
            _refuse_address(record, ip, mac)
            return driver.attach(record, self.ledger.save(blank))
        endpoint = self._endpoint(record, blank, ip, mac)
        if endpoint.device:
            driver.detach(endpoint)
        endpoint = self.ledger.save(msgspec.structs.replace(endpoint, device=device_name(), ports=()))
        try:
            return driver.attach(record, endpoint)
        except BaseException:
            self.ledger.save(msgspec.structs.replace(endpoint, device=""))
            raise

    def detach(self, instance_id: str) -> None:
        """Disconnect an instance from all its networks. Idempotent; its addresses stay reserved."""
        for endpoint in self.ledger.of_instance(instance_id):
            self.drivers[self.ledger.network(endpoint.network).driver].detach(endpoint)
            if endpoint.device:
                self.ledger.save(msgspec.structs.replace(endpoint, device=""))

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

    def files(
        self,
        instance_id: str,
        hostname: str,
        directory: Path,
        *,
        dns: Sequence[str] = (),
        extra_hosts: Sequence[str] = (),
    ) -> tuple[File, ...]:
        """Compute /etc/hosts, /etc/resolv.conf and /etc/hostname of an instance; `names.write` writes the copies."""
        endpoint = next(iter(self.ledger.of_instance(instance_id)), None)
        record = self.ledger.network(endpoint.network) if endpoint else None
        shared = endpoint is not None and endpoint.form == "host"
        text = names.hosts(
            hostname,
            endpoint.address if endpoint else "",
            extra=extra_hosts,
            members=self._neighbours(record, instance_id) if record else {},
            gateway=record.gateway if record and not shared else "",
            base=names.HOSTS.read_text(errors="replace") if shared and names.HOSTS.exists() else "",
        )
        return names.files(directory, hostname, text, names.resolv_conf(dns, shared=shared))

    # ports

    def publish(self, instance_id: str, ports: Sequence[PortRequest]) -> Ports:
        """Publish ports of an attached instance; host port 0 picks a free one.

        Raises `PortTaken` naming the owner, and publishes none then; `Conflict` on a network that can't publish.
        """
        if not ports:
            return []
        with self.ledger.lock, ExitStack() as undo:
            endpoint = self._publishing(instance_id, ports[0])
            chosen = publish.choose(ports, self.ledger.endpoints(), self.table)
            for port in chosen:
                if item := element(endpoint, port):
                    self._add(item)
                    undo.callback(nftables.delete_elements, self.table, [(item.map, item.key)])
            self.ledger.set_ports(endpoint, (*endpoint.ports, *chosen))
            undo.pop_all()
        return chosen

    def unpublish(self, instance_id: str) -> None:
        """Take back every port of an instance. Idempotent."""
        closed = self._close(instance_id)  # takes milliseconds; until the records say so, nobody else gets the ports
        with self.ledger.lock:
            for endpoint in self.ledger.of_instance(instance_id):
                if endpoint.ports:
                    self.ledger.set_ports(endpoint, ())
            back = [item for item in closed if nftables.has_element(self.table, *item)]
            if back:  # somebody loaded the table in between
                nftables.delete_elements(self.table, back)

    # the host

    def load(self) -> None:
        """Load the engine's table, computed from the records, and let bridged traffic be forwarded."""
        with self.ledger.lock:
            forwarding.enable()
            nftables.replace(self.ruleset())

    def ruleset(self) -> nftables.Table:
        """Compute the engine's table; `ruleset().render()` shows it."""
        return table(self.table, self.ledger.networks(), self.ledger.endpoints(), forwarding.closed())

    def restore(self, running: Sequence[str] | None = None) -> None:
        """Make the host fit the records again. With `running`, all other instances are disconnected."""
        repair.restore(self, running)

    def check(self, *, repaired: bool = False) -> Findings:
        """Say where host and records differ, and with `repaired` restore."""
        return repair.check(self, repaired=repaired)

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
            if record.driver == BRIDGE:
                self.load()
        return record

    def _endpoint(self, record: NetworkRecord, blank: Endpoint, ip: str, mac: str) -> Endpoint:
        """Find the instance's endpoint, or reserve one."""
        if mac and not _MAC.fullmatch(mac.lower()):
            raise InvalidArgument(f"{mac!r} is not a MAC address")
        known = next((item for item in self.ledger.of_instance(blank.instance) if item.network == record.id), None)
        if known and ip in ("", known.address):
            return msgspec.structs.replace(
                known, name=blank.name, form=blank.form, owner=blank.owner, mac=mac.lower() or known.mac
            )
        if known:
            self.ledger.free(known)
        endpoint = self.ledger.reserve(record, blank, ip)
        derived = mac.lower() or mac_of(ipaddress.IPv4Address(endpoint.address))
        return msgspec.structs.replace(endpoint, mac=derived)

    def _publishing(self, instance_id: str, port: PortRequest) -> Endpoint:
        for endpoint in self.ledger.of_instance(instance_id):
            record = self.ledger.network(endpoint.network)
            if record.driver != NONE and not record.internal:
                return endpoint
        where = ", ".join(self.ledger.network(item.network).name for item in self.ledger.of_instance(instance_id))
        raise Conflict(
            f"cannot publish port {port.container_port}/{port.protocol}: the instance is on "
            + (f"network {where}, which has no way out" if where else "no network")
        )

    def _add(self, item: Element) -> None:
        """Add an element; when somebody flushed the table, load it anew first."""
        try:
            nftables.add_element(self.table, item.map, item.key, item.value)
        except FileNotFoundError:
            self.load()
            nftables.add_element(self.table, item.map, item.key, item.value)

    def _close(self, instance_id: str) -> Elements:
        """Remove the elements of an instance's ports, and let clients of datagram ports look again."""
        closed = []
        for endpoint in self.ledger.of_instance(instance_id):
            items = [item for port in endpoint.ports if (item := element(endpoint, port))]
            closed += [(item.map, item.key) for item in items]
        if closed:
            nftables.delete_elements(self.table, closed)
        for endpoint in self.ledger.of_instance(instance_id):
            for port in endpoint.ports:
                if port.protocol == "udp" and endpoint.address:
                    forget_datagrams(port.host_port, endpoint.address)
        return closed

    def _members(self, record: NetworkRecord) -> dict[str, str]:
        return {member.name: member.address for member in self.ledger.members(record)}

    def _neighbours(self, record: NetworkRecord, instance_id: str) -> dict[str, str]:
        """Tell who else is on a network made by the user; who uses the host's own is found at the gateway."""
        if record.name in PREDEFINED:
            return {}
        others = [member for member in self.ledger.members(record) if member.instance != instance_id]
        return {member.name: member.address or record.gateway for member in others}


def _refuse_address(record: NetworkRecord, ip: str, mac: str) -> None:
    if ip or mac:
        raise InvalidArgument(f"an instance that uses the host's network cannot have address {ip or mac} of its own")
