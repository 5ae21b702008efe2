"""The network `host`: the instance uses the host's own interfaces."""

from __future__ import annotations

from trivet.base.error import Unsupported
from trivet.engine.network.model import Endpoint, Form, NetworkRecord
from trivet.engine.network.none import Nothing
from trivet.isolation.plan import Attachment


class Host(Nothing):
    """Nothing to make and nothing to remove here, either."""

    def form(self, network: NetworkRecord, wanted: Form) -> Form | None:
        if wanted == "tap":
            raise Unsupported("an instance at level vm has a kernel of its own, it can't be on network host")
        return "host"

    def attach(self, network: NetworkRecord, endpoint: Endpoint, ways: frozenset[int]) -> Attachment:
        return Attachment(kind="host", network=network.name, name="")
