"""nftables: whole tables as data, and single elements of a map by netlink.

A `Table` is replaced in one transaction through `nft -f -` (2 ms), so what is loaded is always a pure
function of what is known. Elements of its maps come and go without `nft`, by NFNETLINK (40 µs):

    nfgenmsg    u8 family, u8 version, u16 resource (network order)
    batch       NFNL_MSG_BATCH_BEGIN, messages, NFNL_MSG_BATCH_END: all or nothing

The parts of a concatenated key or value ("ipv4_addr . inet_service") are padded to four bytes each.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import struct
import subprocess
from collections.abc import Iterator, Sequence

import msgspec

from trivet.base.error import Denied, Internal, TimedOut, Unsupported
from trivet.kernel.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REQUEST,
    Request,
    Socket,
    attribute,
    attributes,
    nested,
    pairs,
    text,
)

NFGEN = struct.Struct(">BBH")
NETLINK_NETFILTER = 12
_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_GETCHAIN, _CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 4, 1, 3, 4, 5
_HOOK_NUMBER, _FORWARD, _DROP = 1, 2, 0
_GETRULE, _RULE_CHAIN, _RULE_HANDLE = 7, 2, 3
_GETTABLE, _NEWSETELEM, _GETSETELEM, _DELSETELEM = 1, 12, 13, 14
_FAMILIES = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}
_TABLE_NAME = 1
_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS = 1, 2, 3
_ELEMENT, _KEY, _DATA, _VALUE = 1, 1, 2, 1
_POSITION = re.compile(r"/dev/stdin:(\d+):\d+-\d+: Error: (.*)")
_TIMEOUT = 20

Part = ipaddress.IPv4Address | ipaddress.IPv6Address | int | bytes


class RulesetError(Internal):
    """nft refused a table that trivet generated."""

    def __init__(self, table: str, rule: str, cause: str) -> None:
        where = f" in rule {rule!r}" if rule else ""
        super().__init__(f"cannot load nftables table {table}: {cause}{where}")


class Set(msgspec.Struct, frozen=True, kw_only=True):
    """A named set, or a map when `value` is given; `elements` are in nft's syntax.

    A key is of types ("ipv4_addr . inet_service") or, with an @ in it, of expressions ("iifname . @th,64,128").
    """

    name: str
    key: str
    value: str = ""
    elements: tuple[str, ...] = ()


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A named limit that is met by what comes faster than `rate` bytes per second, after a `burst` of bytes."""

    name: str
    rate: int
    burst: int

    def render(self) -> list[str]:
        """Write it as nft does."""
        return [f"\tlimit {self.name} {{", f"\t\trate over {self.rate} bytes/second burst {self.burst} bytes", "\t}"]


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of rules in nft's syntax; `hook` makes it a base chain, e.g. "type nat hook output priority -100"."""

    name: str
    rules: tuple[str, ...]
    hook: str = ""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table, complete."""

    name: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
    family: str = "inet"
    limits: tuple[Limit, ...] = ()

    def render(self) -> str:
        """Write the table as nft reads it, one rule to a line."""
        lines = [f"table {self.family} {self.name} {{"]
        for limit in self.limits:
            lines += limit.render()
        for item in self.sets:
            lines += _render_set(item)
        for chain in self.chains:
            hook = [f"\t\t{chain.hook}; policy accept;"] if chain.hook else []
            lines += [f"\tchain {chain.name} {{", *hook, *(f"\t\t{rule}" for rule in chain.rules), "\t}"]
        return "\n".join([*lines, "}", ""])


def replace(*tables: Table) -> None:
    """Load tables in place of what has their names, all in one transaction.

    Raises `RulesetError` naming the rule, `Unsupported` when nft is not installed, `Denied` without CAP_NET_ADMIN.
    """
    names = [f"{table.family} {table.name}" for table in tables]
    gone = "".join(f"table {name}\ndelete table {name}\n" for name in names)
    _run(" and ".join(names), gone + "".join(table.render() for table in tables))


def remove(name: str, family: str = "inet") -> None:
    """Remove a table; one that isn't there is fine."""
    _run(name, f"table {family} {name}\ndelete table {family} {name}\n")


def exists(name: str, family: str = "inet") -> bool:
    """Tell whether a table is loaded."""
    payload = _head(family) + attribute(_TABLE_NAME, name)
    return _found(Request(_SUBSYSTEM << 8 | _GETTABLE, payload, REQUEST, name))


def join(*parts: Part) -> bytes:
    """Pack a key or value: addresses, ports (u16, network order), bytes; of several, each is padded to four bytes."""
    packed = [
        part if isinstance(part, bytes) else part.to_bytes(2, "big") if isinstance(part, int) else part.packed
        for part in parts
    ]
    if len(packed) == 1:
        return packed[0]
    return b"".join(item + bytes(-len(item) % 4) for item in packed)


def add_element(table: str, name: str, key: bytes, value: bytes = b"", family: str = "inet") -> None:
    """Add an element to a set or map. Raises FileExistsError when its key is there with another value."""
    exchange_elements(table, (), [(name, key, value)], family)


def exchange_elements(
    table: str,
    old: Sequence[tuple[str, bytes]],
    new: Sequence[tuple[str, bytes, bytes]],
    family: str = "inet",
    *,
    exclusive: bool = True,
) -> None:
    """Delete (map, key) pairs and add (map, key, value) in one transaction: no packet sees anything in between.

    Raises FileNotFoundError when one of the old isn't there, and when `exclusive` FileExistsError when one of the new
    is: nothing is done then.
    """
    flags = CREATE | EXCLUSIVE if exclusive else CREATE
    gone = [_message(_DELSETELEM, 0, family, table, name, _element(key)) for name, key in old]
    come = [_message(_NEWSETELEM, flags, family, table, name, _element(key, value)) for name, key, value in new]
    _batch(table, [*gone, *come])


def delete_elements(table: str, elements: Sequence[tuple[str, bytes]], family: str = "inet") -> None:
    """Delete (map, key) pairs in one transaction; those that aren't there are fine.

    The kernel waits until no packet looks at the map any more (5 ms and longer, RCU): keep it off hot paths and locks.
    """
    try:
        exchange_elements(table, elements, (), family)
    except FileNotFoundError:
        for name, key in elements if len(elements) > 1 else ():
            delete_elements(table, [(name, key)], family)


def has_element(table: str, name: str, key: bytes, family: str = "inet") -> bool:
    """Tell whether a set or map holds a key; False also when there is no such table."""
    payload = _head(family) + _elements(table, name, _element(key))
    return _found(Request(_SUBSYSTEM << 8 | _GETSETELEM, payload, REQUEST | ACK, name))


def tables(family: str = "inet") -> list[str]:
    """List the names of all loaded tables of a family."""
    request = Request(_SUBSYSTEM << 8 | _GETTABLE, _head(family), REQUEST | DUMP)
    with Socket(NETLINK_NETFILTER) as netlink:
        return [text(attributes(answer[NFGEN.size :])[_TABLE_NAME]) for answer in netlink.dump(request)]


def forward_chains() -> list[tuple[str, str, str, bool]]:
    """List (family, table, chain, whether it drops by default) of all chains that see what is forwarded.

    iptables is among them where it is nftables inside, as in today's distributions.
    """
    found = []
    for family in ("ip", "ip6", "inet"):
        request = Request(_SUBSYSTEM << 8 | _GETCHAIN, _head(family), REQUEST | DUMP)
        with Socket(NETLINK_NETFILTER) as netlink:
            for answer in netlink.dump(request):
                chain = attributes(answer[NFGEN.size :])
                hook = attributes(chain.get(_CHAIN_HOOK, b"")).get(_HOOK_NUMBER, b"")
                drops = chain.get(_CHAIN_POLICY, b"") == _DROP.to_bytes(4, "big")
                if hook == _FORWARD.to_bytes(4, "big"):
                    found.append((family, text(chain[_CHAIN_TABLE]), text(chain[_CHAIN_NAME]), drops))
    return found


def show_chain(table: str, chain: str) -> str:
    """Show a chain of a table ("ip filter") as nft does; empty when there is none."""
    command = ["nft", "list", "chain", *table.split(), chain]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=_TIMEOUT, check=False).stdout


def rules(table: str, family: str = "inet") -> list[tuple[str, bytes]]:
    """List (chain, handle) of all rules of a table: another list is another ruleset. Empty when there is no table."""
    request = Request(_SUBSYSTEM << 8 | _GETRULE, _head(family) + attribute(_TABLE_NAME, table), REQUEST | DUMP, table)
    with Socket(NETLINK_NETFILTER) as netlink:
        found = [attributes(answer[NFGEN.size :]) for answer in netlink.dump(request)]
    return [(text(rule[_RULE_CHAIN]), rule[_RULE_HANDLE]) for rule in found if text(rule[_TABLE_NAME]) == table]


def keys(table: str, name: str, family: str = "inet") -> list[bytes]:
    """List the keys of a set or map; empty when there is no such set."""
    payload = _head(family) + attribute(_ELEMENTS_TABLE, table) + attribute(_ELEMENTS_SET, name)
    request = Request(_SUBSYSTEM << 8 | _GETSETELEM, payload, REQUEST | DUMP, name)
    try:
        with Socket(NETLINK_NETFILTER) as netlink:
            return [key for answer in netlink.dump(request) for key in _keys(answer)]
    except FileNotFoundError:
        return []


def _keys(answer: bytes) -> Iterator[bytes]:
    for _, element in pairs(attributes(answer[NFGEN.size :]).get(_ELEMENTS, b"")):
        yield attributes(attributes(element)[_KEY])[_VALUE]


def _render_set(item: Set) -> list[str]:
    kind, types = ("map", f"{item.key} : {item.value}") if item.value else ("set", item.key)
    elements = [f"\t\telements = {{ {', '.join(item.elements)} }}"] if item.elements else []
    word = "typeof" if "@" in item.key else "type"
    return [f"\t{kind} {item.name} {{", f"\t\t{word} {types}", *elements, "\t}"]


def _run(table: str, script: str) -> None:
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=script, capture_output=True, encoding="utf-8", timeout=_TIMEOUT, check=False
        )
    except (FileNotFoundError, PermissionError) as error:
        what = "is not installed" if isinstance(error, FileNotFoundError) else "may not be executed"
        hint = "install it: apt-get install nftables"
        raise Unsupported(f"the program nft {what}, networks need it", hint=hint) from error
    except subprocess.TimeoutExpired as error:
        raise TimedOut(f"cannot load nftables table {table}: nft did not end within {_TIMEOUT} s") from error
    if done.returncode:
        _explain(table, script, done.stderr)


def _explain(table: str, script: str, stderr: str) -> None:
    """Raise what nft's complaint means; it gives line and column of the script."""
    if "Operation not permitted" in stderr:
        raise Denied(f"cannot load nftables table {table}: changing the rules of this host needs CAP_NET_ADMIN")
    found = _POSITION.search(stderr)
    if not found:
        raise RulesetError(table, "", stderr.strip().partition("\n")[0] or "nft failed without a word")
    raise RulesetError(table, script.splitlines()[int(found[1]) - 1].strip(), found[2])


def _head(family: str) -> bytes:
    return NFGEN.pack(_FAMILIES[family], 0, 0)


def _element(key: bytes, value: bytes = b"") -> bytes:
    data = nested(_DATA, attribute(_VALUE, value)) if value else b""
    return nested(_ELEMENT, nested(_KEY, attribute(_VALUE, key)), data)


def _elements(table: str, name: str, element: bytes) -> bytes:
    return attribute(_ELEMENTS_TABLE, table) + attribute(_ELEMENTS_SET, name) + nested(_ELEMENTS, element)


def _message(kind: int, flags: int, family: str, table: str, name: str, element: bytes) -> Request:
    payload = _head(family) + _elements(table, name, element)
    return Request(_SUBSYSTEM << 8 | kind, payload, REQUEST | ACK | flags, f"nftables map {table} {name}")


def _batch(table: str, messages: Sequence[Request]) -> None:
    frame, what = NFGEN.pack(0, 0, _SUBSYSTEM), f"nftables table {table}"
    begin, end = (Request(kind, frame, REQUEST, what) for kind in (_BATCH_BEGIN, _BATCH_END))
    with Socket(NETLINK_NETFILTER) as netlink:
        netlink.send(begin, *messages, end)


def _found(request: Request) -> bool:
    try:
        with Socket(NETLINK_NETFILTER) as netlink:
            for _ in netlink.dump(request):
                return True
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    return False
