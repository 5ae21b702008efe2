"""This host as one of several that share networks: what it tells the others by a store, and what it hears.

    records ── publish ──▶ store (etcd) ── watch ──▶ board ──▶ records of networks, tunnels, names

Two threads: one listens, one keeps the lease that this host's running instances are told under, and repeats what could
not be told. While the store is away everything stays as it is: packets need nobody, known addresses are kept, and only
what needs the others' consent (a new network, a new address) is refused. When it is back, both sides are made to agree.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import AlreadyExists, Conflict, TrivetError
from trivet.client.schema_network import NetworkRequest
from trivet.engine.network import board, member
from trivet.engine.network.board import Board, Claim, Peer
from trivet.engine.network.model import OVERLAY, Endpoint, NetworkInUse, NetworkRecord
from trivet.engine.network.overlay import Overlay, tunnel_address
from trivet.kernel.rtstack import Address
from trivet.store.etcd import Change, Etcd, StoreRefused, Unless

if TYPE_CHECKING:
    from trivet.engine.network.network import Networks

log = logging.getLogger(__name__)

TTL = 30  # seconds after its last word until a host's instances are forgotten
ABSENCE = 3600  # the same for a host whose engine said good-bye, while its instances go on
_PAUSE = 1.0
_ATTEMPTS = 16


class Fleet:
    """The overlay networks of one engine, which is `host` to the others. Methods may be called from any thread."""

    def __init__(self, networks: Networks, store: Etcd, host: str, address: str = "", ttl: int = TTL) -> None:
        self.board = Board()
        self.host = host
        self.store = store
        self.away = "not asked yet"
        self._networks = networks
        self._wanted = address
        self._tunnel: Address | None = None
        self._ttl, self._lease = ttl, 0
        self._revision = 0
        self._told: dict[str, bytes] = {}
        self._freed: list[str] = []
        self._telling, self._hearing = threading.Lock(), threading.RLock()
        self._ended, self._nudge = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._keep)]

    def look(self) -> None:
        """Read what the store says, if it answers: before links and names are restored."""
        try:
            with self._hearing:
                self._read()
        except TrivetError as error:
            self._note(error)

    def start(self) -> None:
        """Begin to listen and to tell."""
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Let this host's instances be found for a while without the engine, and stop listening."""
        self._ended.set()
        self._nudge.set()
        self.store.hang_up()
        with suppress(TrivetError), self._telling:
            if own := self._own():
                self.store.write(own, lease=self.store.grant(ABSENCE))
        for thread in self._threads:
            thread.join(2)

    def tunnel(self) -> Address:
        """Tell this host's address in tunnels. Raises `Unavailable`."""
        if self._tunnel is None:
            self._tunnel = tunnel_address(self.store.members, self._wanted)
        return self._tunnel

    # networks

    def create(self, request: NetworkRequest) -> NetworkRecord:
        """Make a network that every host has. Raises `StoreAway`, and what `design` does."""
        record = None
        for _ in range(_ATTEMPTS):
            with self._hearing:
                generation = self._read()
                if record and request.name in self.board.networks and self.board.networks[request.name].id == record.id:
                    return record  # the member that was told died before it answered; `_read` took it in
                if request.name in self.board.networks or self._networks.ledger.has(request.name):
                    raise AlreadyExists(f"network {request.name} already exists")
                record = member.design(self._networks, request, self.board, self.tunnel())
                key = board.network_key(record.name)
                puts = {key: _encode(board.share(record)), board.GENERATION: b""}
                if not self.store.write(puts, conditions=[Unless(key), Unless(board.GENERATION, generation)]):
                    continue  # another host was faster
                try:
                    member.take_in(self._networks, record)
                except BaseException:
                    self.store.write({}, [key])
                    raise
                return record
        raise Conflict(f"cannot create network {request.name}: other hosts make networks all the time")

    def remove(self, record: NetworkRecord) -> None:
        """Take a network from every host. Raises `NetworkInUse` while an instance somewhere has an address of it."""
        self._flush()
        below = board.address_key(record.id, "")
        if self.store.write({}, [board.network_key(record.name)], conditions=[Unless(below)]):
            return
        for value in self.store.read(below)[1]:
            claim = msgspec.json.decode(value.value, type=Claim)
            raise NetworkInUse(record.name, claim.name)

    # instances

    def claim(self, endpoint: Endpoint) -> str:
        """Take an endpoint's addresses for it, all or none; name who has one already. Raises `StoreAway`."""
        self._flush()  # what was given back a moment ago
        claim = _encode(Claim(host=self.host, instance=endpoint.instance, name=endpoint.name))
        keys = _addresses(endpoint)
        if self.store.write(dict.fromkeys(keys, claim), conditions=[Unless(key) for key in keys]):
            return ""
        held = [value for key in keys if (value := self.store.get(key))]
        with self._hearing:
            self.board.apply(Change(each.key, each.value) for each in held)
        holders = [msgspec.json.decode(each.value, type=Claim) for each in held]
        return next((each.name for each in holders if each.instance != endpoint.instance), "")

    def free(self, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back, when the store is there again if it isn't now."""
        self._freed += _addresses(endpoint)
        self._nudge.set()

    def publish(self) -> None:
        """Tell the others which instances run here now; later, if the store is away."""
        try:
            self._flush()
        except TrivetError as error:
            self._note(error)

    def far(self) -> list[Endpoint]:
        """List the instances of other hosts that are to be found by name."""
        found = []
        for record in self._records():
            found += [endpoint for endpoint, peer in self.board.far(record, self.host) if not peer.leaving]
        return found

    def members(self, record: NetworkRecord) -> dict[str, str]:
        """List a network's instances on other hosts, as NAME@HOST, with their addresses."""
        return {f"{peer.name}@{peer.hostname}": each.first for each, peer in self.board.far(record, self.host)}

    # hearing

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                for heard in self.store.watch("", self._join() + 1):
                    with self._hearing:
                        changes = [change for change in heard if change.revision > self._revision]
                        touched = self.board.apply(changes)
                        if any(change.key.startswith("network/") for change in changes):
                            member.agree(self._networks, self.board)
                    self._converge(touched)
            except (TrivetError, OSError) as error:
                self._note(error)
            except Exception:
                log.exception("listening to the fleet's store failed")
            self._ended.wait(_PAUSE)

    def _join(self) -> int:
        """Read everything and make both sides agree; the revision that was read."""
        with self._hearing:
            self._read()
            revision = self._revision
            member.restore(self, self._networks)
        if self.away:
            log.info("the fleet's store %s answers", self.store.place)
        self.away = ""
        with self._telling:
            self._told = {}
        self._flush()
        self._converge([record.id for record in self._records()])
        return revision

    def _read(self) -> int:
        """Read everything as it is now; the revision of the last network made."""
        self._revision, values = self.store.read("")
        fresh = Board()
        fresh.apply(Change(each.key, each.value) for each in values)
        self.board = fresh
        member.agree(self._networks, fresh)
        return next((each.revision for each in values if each.key == board.GENERATION), 0)

    def _converge(self, touched: Sequence[str] | set[str]) -> None:
        """Let tunnels and names know what the board says of some networks."""
        for record in self._records():
            if record.id in touched:
                try:
                    self.tell(record)
                except OSError as error:
                    log.warning("cannot tell the tunnel of network %s: %s", record.name, error)
        if touched:
            self._networks.announce()

    def tell(self, record: NetworkRecord) -> None:
        """Let a network's tunnel know the instances of other hosts; until the store was heard, what it knows stays."""
        if not self._revision:
            return
        driver = self._networks.drivers[OVERLAY]
        assert isinstance(driver, Overlay)
        driver.tell(record, self.board.entries(record, self.host))

    # telling

    def _keep(self) -> None:
        while not self._ended.is_set():
            try:
                with self._telling:
                    if not self._lease or not self.store.keep(self._lease):
                        self._lease, self._told = self.store.grant(self._ttl), {}
                self._flush()
            except (TrivetError, OSError) as error:
                self._note(error)
                self.store.hang_up()  # it may be waiting for somebody who isn't there any more
            except Exception:
                log.exception("telling the fleet's store failed")
            self._nudge.wait(max(1.0, self._ttl / 3) if not self._freed else _PAUSE)
            self._nudge.clear()

    def _flush(self) -> None:
        """Tell what changed since the last time."""
        with self._telling:
            own = self._own()
            puts = {key: value for key, value in own.items() if self._told.get(key) != value}
            gone, freed = [key for key in self._told if key not in own], list(self._freed)
            if not (puts or gone or freed):
                return
            try:
                self._lease = self._lease or (self.store.grant(self._ttl) if puts else 0)
                self.store.write(puts, [*gone, *freed], lease=self._lease)
            except StoreRefused:  # the lease is gone
                self._lease = self.store.grant(self._ttl)
                self.store.write(own, [*gone, *freed], lease=self._lease)
            self._told = own
            del self._freed[: len(freed)]

    def _own(self) -> dict[str, bytes]:
        found = {}
        for record in self._records():
            for each in self._networks.ledger.members(record):
                if each.device:
                    peer = Peer(
                        host=self.host,
                        hostname=os.uname().nodename,
                        tunnel=str(self.tunnel()),
                        name=each.name,
                        mac=each.mac,
                        addresses=[address for address in (each.address, each.address6) if address],
                        aliases=list(each.aliases),
                        leaving=each.instance in self._networks.nameserver.leaving,
                    )
                    found[board.endpoint_key(record.id, each.instance)] = _encode(peer)
        return found

    def _records(self) -> list[NetworkRecord]:
        return [record for record in self._networks.ledger.networks() if record.driver == OVERLAY]

    def _note(self, error: Exception) -> None:
        if str(error) != self.away and not self._ended.is_set():
            log.warning("%s", error)
            self.away = str(error)


def _addresses(endpoint: Endpoint) -> list[str]:
    return [board.address_key(endpoint.network, each) for each in (endpoint.address, endpoint.address6) if each]


def _encode(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value)
