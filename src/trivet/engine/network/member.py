"""A host's records and its fleet's: networks made elsewhere are taken in, what is gone there goes here."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import TrivetError
from trivet.client.schema_network import NetworkRequest
from trivet.engine.network import board
from trivet.engine.network import design as designing
from trivet.engine.network.board import Board, Claim
from trivet.engine.network.model import MTU, OVERLAY, VNI, InvalidNetwork, NetworkRecord
from trivet.engine.network.overlay import ROOM, underlay_mtu
from trivet.kernel.rtstack import Address
from trivet.store.etcd import Unless

if TYPE_CHECKING:
    from trivet.engine.network.fleet import Fleet
    from trivet.engine.network.network import Networks

log = logging.getLogger(__name__)

FIRST_NUMBER = 4096


def design(networks: Networks, request: NetworkRequest, known: Board, tunnel: Address) -> NetworkRecord:
    """Decide about a network for all hosts: what `design` decides, a number for its tunnels, and an MTU they carry."""
    record = designing.design(request, networks.engine_id, networks.ledger.networks())
    room = underlay_mtu(tunnel) - ROOM[tunnel.version]
    if request.mtu > room and (request.mtu != designing.USUAL_MTU or MTU in request.options):
        raise InvalidNetwork(record.name, f"cannot have MTU {request.mtu}: tunnels carry {room} here")
    taken = {shared.number for shared in known.networks.values()}
    number = _number(request, taken)
    return msgspec.structs.replace(
        record, mtu=min(record.mtu, room), chosen=False, options={**record.options, VNI: str(number)}
    )


def take_in(networks: Networks, record: NetworkRecord) -> None:
    """Set a network up here, unless that was done. Raises what the driver does, and leaves nothing then."""
    with networks.ledger.lock, designing.alone(), ExitStack() as undo:
        if any(each.id == record.id for each in networks.ledger.networks()):
            return
        driver = networks.drivers[OVERLAY]
        undo.enter_context(networks.ledger.adding(record))
        undo.push(lambda kind, error, trace: driver.remove(record) if error else None)
        driver.create(record)
        networks.load()
    if record.internal:
        networks.carry()


def agree(networks: Networks, known: Board) -> None:
    """Take in what other hosts made, and drop what is gone and not used here."""
    here = {record.id: record for record in networks.ledger.networks() if record.driver == OVERLAY}
    there = {shared.id for shared in known.networks.values()}
    for shared in known.networks.values():
        if shared.id not in here:
            try:
                if networks.ledger.has(shared.name):
                    raise ValueError("another network here has its name")
                interface = designing.interface(networks.engine_id, shared.name, shared.id)
                take_in(networks, board.adopt(shared, interface))
            except (ValueError, OSError, TrivetError) as error:
                log.warning("cannot take network %s of the fleet in: %s", shared.name, error)
    for record in here.values():
        if record.id not in there and not networks.ledger.members(record):
            with networks.ledger.lock:
                networks.ledger.drop(record)
                networks.drivers[OVERLAY].remove(record)
                networks.load()


def restore(fleet: Fleet, networks: Networks) -> None:
    """Tell the store what it should know and doesn't, and have it forget what isn't so any more."""
    puts: dict[str, bytes] = {}
    for record in networks.ledger.networks():
        members = networks.ledger.members(record) if record.driver == OVERLAY else []
        if members and record.name not in fleet.board.networks:
            puts[board.network_key(record.name)] = msgspec.json.encode(board.share(record))
        for member in members:
            claim = Claim(host=fleet.host, instance=member.instance, name=member.name)
            for address in filter(None, (member.address, member.address6)):
                if address not in fleet.board.claims.get(record.id, {}):
                    puts[board.address_key(record.id, address)] = msgspec.json.encode(claim)
    for key, value in puts.items():
        fleet.store.write({key: value}, conditions=[Unless(key)])
    instances = {endpoint.key for endpoint in networks.ledger.endpoints()}
    running = {endpoint.key for endpoint in networks.ledger.endpoints() if endpoint.device}
    stale = [
        board.address_key(network, address)
        for network, claims in fleet.board.claims.items()
        for address, claim in claims.items()
        if claim.host == fleet.host and f"{claim.instance}/{network}" not in instances
    ]
    stale += [
        board.endpoint_key(network, instance)
        for network, peers in fleet.board.peers.items()
        for instance, peer in peers.items()
        if peer.host == fleet.host and f"{instance}/{network}" not in running
    ]
    fleet.store.write({}, stale)


def _number(request: NetworkRequest, taken: set[int]) -> int:
    wanted = request.options.get(VNI, "")
    if not wanted:
        return next(number for number in range(FIRST_NUMBER, 1 << 24) if number not in taken)
    if not wanted.isdigit() or not 0 < int(wanted) < 1 << 24:
        raise InvalidNetwork(request.name, f"cannot have option {VNI}: {wanted!r} is not a number below {1 << 24}")
    if int(wanted) in taken:
        raise InvalidNetwork(request.name, f"cannot have option {VNI}: another network has number {wanted}")
    return int(wanted)
