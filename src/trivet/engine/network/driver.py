"""The contract between `Networks` and a kind of network.

    create ──▶ attach ──▶ (the instance runs) ──▶ detach ──▶ remove
       ▲                                                        │
       └── again after a reboot or when somebody deleted it ────┘   create and detach are idempotent

Drivers keep nothing in memory: records go in, attachments come out. Who is on a network, with which
address, is decided above; which packets may pass is decided for all networks together, in `ruleset.py`.
"""

from __future__ import annotations

from typing import Protocol

from trivet.engine.network.model import Endpoint, Form, NetworkRecord
from trivet.isolation.plan import Attachment


class Driver(Protocol):
    """What each kind of network must do."""

    def form(self, network: NetworkRecord, wanted: Form) -> Form | None:
        """Tell how an instance that wants `wanted` is connected; None is not at all.

        Raises `Unsupported` when a level can't be on this network.
        """

    def create(self, network: NetworkRecord) -> None:
        """Make what the network needs on the host; what is already right is left alone."""

    def remove(self, network: NetworkRecord) -> None:
        """Take it away; missing is fine."""

    def attach(self, network: NetworkRecord, endpoint: Endpoint, ways: frozenset[int]) -> Attachment:
        """Connect an instance, whose namespace is there in form netns. When it fails nothing is left behind.

        `ways` are the IP versions whose default route goes over this network.
        """

    def reattach(self, network: NetworkRecord, endpoint: Endpoint) -> bool:
        """Put the link of a running instance back on a network made anew; False when the link is gone."""

    def detach(self, endpoint: Endpoint) -> None:
        """Take an instance's link away; what is already gone is fine."""

    def problem(self, network: NetworkRecord) -> str:
        """Say what is wrong with the network on this host; "" when all is well."""
