"""The ledger: records of networks and endpoints, with the address pools that follow from them.

The record file is the truth. Endpoints are also kept in memory, as every attachment and every
published port looks at all of them; the engine is the only writer.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from trivet.base.error import AlreadyExists, NotFound
from trivet.client.schema_network import Port
from trivet.engine.network.ipam import Pool
from trivet.engine.network.model import Endpoint, NetworkRecord, NoSuchNetwork
from trivet.store.record import Records


class Ledger:
    """Who is on which network. Methods may be called from any thread; `lock` makes several of them one step.

    `elsewhere` lists the addresses of a network that other hosts have, `given_back` hears of those that are free again.
    """

    def __init__(self, records: Records) -> None:
        self.lock = threading.RLock()
        self.elsewhere: Callable[[NetworkRecord], Collection[int]] = lambda network: ()
        self.given_back: Callable[[Endpoint], None] = lambda endpoint: None
        self._networks = records.table("network", NetworkRecord)
        self._endpoints = records.table("endpoint", Endpoint)
        self._known = {endpoint.key: endpoint for endpoint in self._endpoints.all()}
        self._of_instance: dict[str, list[str]] = {}  # keys of endpoints
        for endpoint in self._known.values():
            self._of_instance.setdefault(endpoint.instance, []).append(endpoint.key)
        self._pools: dict[str, dict[int, Pool]] = {}

    def networks(self) -> list[NetworkRecord]:
        """List the networks, oldest first."""
        return self._networks.all()

    def network(self, reference: str) -> NetworkRecord:
        """Look a network up by name, id or prefix. Raises `NoSuchNetwork`."""
        try:
            return self._networks.find(reference)
        except NotFound as error:
            raise NoSuchNetwork(reference) from error

    def has(self, name: str) -> bool:
        """Tell whether a network of this name exists."""
        return self._networks.by_name(name) is not None

    @contextmanager
    def adding(self, network: NetworkRecord) -> Iterator[None]:
        """Add a network for the time of what is inside; it stays if that succeeds. Raises `AlreadyExists`."""
        self._networks.insert(network.id, network, name=network.name)
        try:
            yield
        except BaseException:
            self._networks.delete(network.id)
            raise

    def move(self, network: NetworkRecord) -> None:
        """Record a network's other subnet; addresses reserved in the old one are given up."""
        for endpoint in self.members(network):
            self.free(endpoint)
        self._networks.update(network.id, network)
        self._pools.pop(network.id, None)

    def drop(self, network: NetworkRecord) -> None:
        """Forget a network."""
        self._networks.delete(network.id)
        self._pools.pop(network.id, None)

    def endpoints(self) -> list[Endpoint]:
        """List all endpoints; copying them is one step, which needs no lock."""
        return list(self._known.values())

    def members(self, network: NetworkRecord) -> list[Endpoint]:
        """List the endpoints of one network."""
        return [endpoint for endpoint in self.endpoints() if endpoint.network == network.id]

    def of_instance(self, instance: str) -> list[Endpoint]:
        """List the endpoints of one instance."""
        with self.lock:
            return [self._known[key] for key in self._of_instance.get(instance, ())]

    def reserve(self, network: NetworkRecord, endpoint: Endpoint, ip: str = "", ip6: str = "") -> Endpoint:
        """Record an endpoint with addresses of its network's pools. Raises as `Pool.allocate` does."""
        wanted = {4: ip, 6: ip6}
        with self.lock, ExitStack() as undo:
            given = {4: "", 6: ""}
            for version, pool in self._pools_of(network).items():
                try:
                    address = pool.allocate(wanted[version], self.elsewhere(network))
                except AlreadyExists as error:
                    holder = self._holder(network, wanted[version])
                    raise AlreadyExists(f"{error.message} by instance {holder}") from error
                undo.callback(pool.release, address)
                given[version] = str(address)
            endpoint = self.save(msgspec.structs.replace(endpoint, address=given[4], address6=given[6]))
            undo.pop_all()
        return endpoint

    def save(self, endpoint: Endpoint) -> Endpoint:
        """Record an endpoint as it is now."""
        with self.lock:
            self._endpoints.put(endpoint.key, endpoint, name=endpoint.claim)
            if endpoint.key not in self._known:
                self._of_instance.setdefault(endpoint.instance, []).append(endpoint.key)
            self._known[endpoint.key] = endpoint
            return endpoint

    def free(self, endpoint: Endpoint) -> None:
        """Forget an endpoint and give its address back."""
        self.forget(endpoint)
        self.given_back(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """Forget an endpoint, whose address was not given to it after all."""
        with self.lock:
            self._endpoints.delete(endpoint.key)
            if self._known.pop(endpoint.key, None):
                keys = self._of_instance[endpoint.instance]
                keys.remove(endpoint.key)
                if not keys:
                    del self._of_instance[endpoint.instance]
            pools = self._pools.get(endpoint.network, {})
            for version, address in ((4, endpoint.address), (6, endpoint.address6)):
                if address and version in pools:
                    pools[version].release(ipaddress.ip_address(address))

    def set_ports(self, endpoint: Endpoint, ports: tuple[Port, ...]) -> Endpoint:
        """Record what an endpoint publishes."""
        return self.save(msgspec.structs.replace(endpoint, ports=ports))

    def _pools_of(self, network: NetworkRecord) -> dict[int, Pool]:
        if network.id not in self._pools:
            members = self.members(network)
            self._pools[network.id] = {
                version: Pool(
                    ipaddress.ip_network(subnet),
                    ipaddress.ip_address(gateway),
                    [
                        ipaddress.ip_address(address)
                        for member in members
                        if (address := member.address if version == 4 else member.address6)
                    ],
                    ipaddress.ip_network(network.ip_range) if network.ip_range and version == 4 else None,
                )
                for version, subnet, gateway in network.ranges()
            }
        return self._pools[network.id]

    def _holder(self, network: NetworkRecord, address: str) -> str:
        return next(
            (member.name for member in self.members(network) if address in (member.address, member.address6)), "another"
        )
