"""Policies as a noun: applied, listed, removed, and what each of that changes, before it is done."""

from __future__ import annotations

import ipaddress
import re
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.base.error import InvalidArgument, NotFound, Unsupported
from trivet.client.schema_policy import Allowance, PolicyChange, PolicyOutcome, PolicyRequest
from trivet.engine.network.model import Endpoint
from trivet.engine.network.policy import PolicyRecord, Population, allowed
from trivet.kernel import rtnetlink
from trivet.store.record import Records

if TYPE_CHECKING:
    from trivet.engine.network.network import Networks

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_SWITCH = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
WORLD = "world"


class NoSuchPolicy(NotFound):
    """A name that no policy has."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no such policy: {name}", hint="list them: trivet policy ls")


class InvalidPolicy(InvalidArgument):
    """A policy that can't be meant."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"policy {name} {cause}")


class Policies:
    """The policies of one engine."""

    def __init__(self, networks: Networks, records: Records) -> None:
        self._networks = networks
        self._table = records.table("network-policy", PolicyRecord)
        self._known = [record.request for record in self._table.all()]

    def list(self) -> Sequence[PolicyRequest]:
        """List them in the order of their names, which has no meaning."""
        return sorted(self._known, key=lambda each: each.name)

    def find(self, name: str) -> PolicyRequest:
        """Look one up. Raises `NoSuchPolicy`."""
        found = next((each for each in self._known if each.name == name), None)
        if found is None:
            raise NoSuchPolicy(name)
        return found

    def apply(self, request: PolicyRequest, *, dry_run: bool = False) -> PolicyOutcome:
        """Put a policy in force, in place of one of its name; tells which pairs it changes.

        Raises `InvalidPolicy`, and `Unsupported` where the kernel can't look into bridges.
        """
        _check(request)
        with self._networks.ledger.lock:
            wanted = [*(each for each in self._known if each.name != request.name), request]
            outcome = PolicyOutcome(name=request.name, changes=list(self._changes(wanted)))
            if not dry_run:
                look_into_bridges()
                before = self._table.by_name(request.name)
                key = before.id if before else secrets.token_hex(16)
                self._enforce(wanted)
                self._table.put(key, PolicyRecord(id=key, request=request), name=request.name)
        return outcome

    def remove(self, name: str, *, dry_run: bool = False) -> PolicyOutcome:
        """Take a policy out of force. Raises `NoSuchPolicy`."""
        with self._networks.ledger.lock:
            self.find(name)
            left = [each for each in self._known if each.name != name]
            outcome = PolicyOutcome(name=name, changes=list(self._changes(left)))
            record = self._table.by_name(name)
            if not dry_run and record:
                self._table.delete(record.id)
                self._enforce(left)
        return outcome

    def people(self, policies: Sequence[PolicyRequest] | None = None) -> Population:
        """Gather endpoints and labels, with the policies in force or others; nobody where none is in force."""
        if policies is None and not self._known:
            return Population()
        endpoints = [each for each in self._networks.ledger.endpoints() if each.address or each.address6]
        labels = {each.instance: self._networks.labels(each.instance) for each in endpoints}
        return Population(
            endpoints=endpoints, labels=labels, policies=tuple(self.list() if policies is None else policies)
        )

    def _enforce(self, wanted: Sequence[PolicyRequest]) -> None:
        before, self._known = self._known, list(wanted)
        try:
            self._networks.load()
        except BaseException:
            self._known = before
            raise
        self._networks.carry()

    def _changes(self, wanted: Sequence[PolicyRequest]) -> Iterator[PolicyChange]:
        now, then = self.people(self.list()), self.people(sorted(wanted, key=lambda each: each.name))
        edges = sorted({port for people in (now, then) for port in _edges(people)})
        for source, target in _pairs(now.endpoints):
            before, after = (_words(people, source, target, edges) for people in (now, then))
            if before != after:
                names = [each.name if each else WORLD for each in (source, target)]
                yield PolicyChange(source=names[0], target=names[1], before=before, after=after)


def look_into_bridges() -> None:
    """See that the kernel asks our rules also about frames between two ports of one bridge. Raises `Unsupported`."""
    if not _SWITCH.exists():
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False, timeout=20)
    if not _SWITCH.exists():
        raise Unsupported("policies need the kernel's br_netfilter, which is not here", hint="modprobe br_netfilter")


def look_into(interfaces: Sequence[str]) -> None:
    """The same for bridges that are there."""
    for interface in interfaces:
        if rtnetlink.link(interface):
            rtnetlink.filter_bridge(interface)


def _check(request: PolicyRequest) -> None:
    if not _NAME.fullmatch(request.name):
        raise InvalidArgument(
            f"policy name {request.name!r} is invalid: small letters, digits, '-' and '.' are possible"
        )
    if request.ingress is None and request.egress is None:
        raise InvalidPolicy(request.name, "says neither what may come nor what may go")
    for allowance in (*(request.ingress or ()), *(request.egress or ())):
        for port in allowance.ports:
            if not 1 <= port.first <= port.last <= 65535:
                raise InvalidPolicy(request.name, f"has ports {port.first}-{port.last}, 1 to 65535 is possible")
        _check_peers(request.name, allowance)


def _check_peers(name: str, allowance: Allowance) -> None:
    for peer in allowance.peers:
        if (peer.labels is None) == (not peer.cidr):
            raise InvalidPolicy(name, "has a peer that is neither instances by labels nor addresses, or both")
        if not peer.cidr:
            continue
        try:
            whole = ipaddress.ip_network(peer.cidr)
            parts = [ipaddress.ip_network(each) for each in peer.excluding]
        except ValueError as error:
            raise InvalidPolicy(name, f"has a peer that is no range of addresses: {error}") from error
        for part in parts:
            if part.version != whole.version or not part.subnet_of(whole):  # type: ignore[arg-type]
                raise InvalidPolicy(name, f"excludes {part}, which is not in {whole}")
        if any(one != two and one.overlaps(two) for one in parts for two in parts):
            raise InvalidPolicy(name, f"excludes ranges of {whole} that overlap")


def _pairs(endpoints: Sequence[Endpoint]) -> Iterator[tuple[Endpoint | None, Endpoint | None]]:
    for one in endpoints:
        yield None, one
        yield one, None
        for other in endpoints:
            if one.instance != other.instance and one.network == other.network:
                yield one, other


def _edges(people: Population) -> Iterator[tuple[str, int]]:
    """List a port of each stretch in which nothing changes."""
    yield from (("tcp", 1), ("udp", 1))
    for policy in people.policies:
        for allowance in (*(policy.ingress or ()), *(policy.egress or ())):
            for port in allowance.ports:
                yield port.protocol, port.first
                if port.last < 65535:
                    yield port.protocol, port.last + 1


def _words(
    people: Population, source: Endpoint | None, target: Endpoint | None, edges: Sequence[tuple[str, int]]
) -> str:
    """Say what may pass between two: everything, nothing, or some ports."""
    ends = [ipaddress.ip_address(each.address or each.address6) if each else None for each in (source, target)]
    spans: list[str] = []
    full = True
    for index, (protocol, first) in enumerate(edges):
        following = edges[index + 1] if index + 1 < len(edges) else ("", 0)
        last = following[1] - 1 if following[0] == protocol else 65535
        goes = ends[0] is None or allowed(people, "out", ends[0], ends[1], protocol, first)
        if goes and (ends[1] is None or allowed(people, "in", ends[1], ends[0], protocol, first)):
            spans.append(f"{first}/{protocol}" if first == last else f"{first}-{last}/{protocol}")
        else:
            full = False
    return "everything" if full else ", ".join(spans) or "nothing"
