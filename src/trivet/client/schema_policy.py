"""The wire shapes of policies between instances, and of the log of what they decided."""

from __future__ import annotations

from typing import Literal

import msgspec


class PolicyPort(msgspec.Struct, frozen=True, kw_only=True):
    """A range of ports, both ends included."""

    first: int
    last: int
    protocol: Literal["tcp", "udp"] = "tcp"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The other side: instances with all these labels ({} is every instance), or addresses but for some."""

    labels: dict[str, str] | None = None
    cidr: str = ""
    excluding: list[str] = []


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What may be: with any of these peers (none named: with everybody), at any of these ports (none named: at all)."""

    peers: list[Peer] = []
    ports: list[PolicyPort] = []


class PolicyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A policy: who it is about by labels, and what may come to them and go from them; None says nothing of that way.

    As soon as one policy is about an instance's way in (or out), only what some policy allows may come (or go).
    With `log` also what is allowed is logged; what is denied always is.
    """

    name: str
    labels: dict[str, str]
    ingress: list[Allowance] | None = None
    egress: list[Allowance] | None = None
    log: bool = False


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """A pair whose way is another with a policy than without: what may pass, in words."""

    source: str
    target: str
    before: str
    after: str


class PolicyOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What applying or removing a policy changes, or would."""

    name: str
    changes: list[PolicyChange]


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The first packet of a connection, as a policy saw it; names are those of instances, "" for others."""

    time: str
    verdict: str  # deny, allow
    direction: str  # in, out
    policy: str
    source: str
    target: str
    source_name: str
    target_name: str
    protocol: str
    port: int
