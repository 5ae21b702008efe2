"""The network `none`: loopback only."""

from __future__ import annotations

from trivet.base.error import Unsupported
from trivet.engine.network.model import Endpoint, Form, NetworkRecord
from trivet.isolation.plan import Attachment


class Nothing:
    """Nothing to make and nothing to remove."""

    def form(self, network: NetworkRecord, wanted: Form) -> Form | None:
        if wanted == "host":
            raise Unsupported("an instance at level process has the host's network, it can't be on network none")
        return None

    def create(self, network: NetworkRecord) -> None:
        pass

    def remove(self, network: NetworkRecord) -> None:
        pass

    def attach(self, network: NetworkRecord, endpoint: Endpoint, ways: frozenset[int]) -> Attachment:
        return Attachment(kind="none", network=network.name, name="lo")

    def reattach(self, network: NetworkRecord, endpoint: Endpoint) -> bool:
        return True

    def detach(self, endpoint: Endpoint) -> None:
        pass

    def problem(self, network: NetworkRecord) -> str:
        return ""
