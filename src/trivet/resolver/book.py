"""Who is called what: the file that the engine writes, and answers out of it.

    {"networks":  {ID: {"name", "gateway", "machines", "members": [{"names", "addresses", "ports"}]}},
     "instances": {ID: {"namespace", "networks": [ID], "addresses": [[ID, ADDRESS]], "servers": [[ADDRESS, OF_HOST]]}}}

`namespace` is a path, "" for a machine. An instance finds members of its own networks only, and has servers only if
one of those leads outside.
"""

from __future__ import annotations

import json
import random
import socket
from typing import NamedTuple

from trivet.resolver import wire
from trivet.resolver.wire import Query

_FAMILIES = {wire.A: socket.AF_INET, wire.AAAA: socket.AF_INET6}
_REVERSE4, _REVERSE6 = ".in-addr.arpa", ".ip6.arpa"


class Member(NamedTuple):
    """An instance on a network."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    ports: frozenset[tuple[int, str]]


class Network(NamedTuple):
    """A network, its members by all their names and by address."""

    name: str
    gateway: str
    machines: bool
    by_name: dict[str, list[Member]]
    by_address: dict[str, Member]


class Asker(NamedTuple):
    """An instance that may ask. `servers` know what we don't; each is asked in the host's namespace or the asker's."""

    namespace: str
    networks: tuple[str, ...]
    servers: tuple[tuple[str, bool], ...]


class Book(NamedTuple):
    """Everything the server knows. `machines` says who asks from an address at a network's gateway."""

    networks: dict[str, Network]
    askers: dict[str, Asker]
    machines: dict[tuple[str, str], str]


EMPTY = Book({}, {}, {})


def read(text: str) -> Book:
    """Read the engine's file."""
    data = json.loads(text)
    networks = {key: _network(value) for key, value in data["networks"].items()}
    askers: dict[str, Asker] = {}
    machines: dict[tuple[str, str], str] = {}
    for key, value in data["instances"].items():
        servers = tuple((address, of_host) for address, of_host in value["servers"])
        askers[key] = Asker(value["namespace"], tuple(value["networks"]), servers)
        machines |= dict.fromkeys(map(tuple, value["addresses"]), key)
    return Book(networks, askers, machines)


def answer(book: Book, asker: Asker, query: Query) -> tuple[int, list[tuple[int, bytes]]] | None:
    """Answer out of the book: response code and records (none: the name has others). None: it is not known here."""
    if query.klass != wire.IN:
        return None
    networks = [book.networks[key] for key in asker.networks]
    if query.name.endswith((_REVERSE4, _REVERSE6)):
        return _reverse(networks, query)
    if query.name.startswith("_"):
        return _service(networks, query)
    members = _find(networks, query.name)
    if not members:
        return None
    kinds = _FAMILIES if query.type == wire.ANY else {query.type} & _FAMILIES.keys()
    found = [
        (kind, socket.inet_pton(_FAMILIES[kind], address))
        for member in members
        for address in member.addresses
        for kind in kinds
        if (":" in address) == (kind == wire.AAAA)
    ]
    random.shuffle(found)
    return wire.OK, found


def _find(networks: list[Network], name: str) -> list[Member]:
    """Look a name up, also as NAME.NETWORK; what the first network knows goes before the others."""
    for network in networks:
        if found := network.by_name.get(name):
            return found
    for network in networks:
        bare = name.removesuffix(f".{network.name.lower()}")
        if bare != name and (found := network.by_name.get(bare)):
            return found
    return []


def _reverse(networks: list[Network], query: Query) -> tuple[int, list[tuple[int, bytes]]] | None:
    address = _address(query.name)
    for network in networks:
        if member := network.by_address.get(address):
            known = query.type in (wire.PTR, wire.ANY)
            return wire.OK, [(wire.PTR, wire.encode(f"{member.names[0]}.{network.name}"))] if known else []
    return None


def _service(networks: list[Network], query: Query) -> tuple[int, list[tuple[int, bytes]]] | None:
    """Answer _PORT._PROTOCOL.NAME, a number or a word of services(5), where the member publishes that port."""
    port, _, rest = query.name.removeprefix("_").partition("._")
    protocol, _, name = rest.partition(".")
    members = _find(networks, name)
    if not members:
        return None
    try:
        number = int(port) if port.isdecimal() else socket.getservbyname(port, protocol)
    except OSError:
        return wire.NO_SUCH_NAME, []
    found = [member for member in members if (number, protocol) in member.ports]
    records = [(wire.SRV, bytes(4) + number.to_bytes(2, "big") + wire.encode(member.names[0])) for member in found]
    return (wire.OK if found else wire.NO_SUCH_NAME), records if query.type in (wire.SRV, wire.ANY) else []


def _address(name: str) -> str:
    """Read an address back from its name in the reverse tree; "" for something else."""
    try:
        if name.endswith(_REVERSE4):
            packed = bytes(int(part) for part in reversed(name.removesuffix(_REVERSE4).split(".")))
            return socket.inet_ntop(socket.AF_INET, packed)
        packed = bytes.fromhex("".join(reversed(name.removesuffix(_REVERSE6).split("."))))
        return socket.inet_ntop(socket.AF_INET6, packed)
    except ValueError:
        return ""


def _network(value: dict[str, object]) -> Network:
    by_name: dict[str, list[Member]] = {}
    by_address: dict[str, Member] = {}
    members = value["members"]
    assert isinstance(members, list)
    for row in members:
        ports = frozenset((number, protocol) for number, protocol in row["ports"])
        member = Member(tuple(row["names"]), tuple(row["addresses"]), ports)
        for name in {name.lower() for name in member.names}:
            by_name.setdefault(name, []).append(member)
        by_address |= dict.fromkeys(member.addresses, member)
    return Network(str(value["name"]), str(value["gateway"]), bool(value["machines"]), by_name, by_address)
