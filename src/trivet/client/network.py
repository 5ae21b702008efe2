"""Networks, as the client sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trivet.client.schema import ConnectRequest, EndpointRequest, Network, NetworkRequest
from trivet.client.schema_path import Way
from trivet.client.transport import Query, Transport, filters, segment


class Networks:
    """`/v1/networks`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, request: NetworkRequest) -> Network:
        """Make a network."""
        return self._transport.fetch(Network, "POST", "/v1/networks", body=request)

    def list(self, wanted: Mapping[str, Sequence[str]] | None = None) -> list[Network]:
        """List networks."""
        return self._transport.fetch(list[Network], "GET", "/v1/networks", {"filter": filters(wanted)})

    def get(self, ref: str) -> Network:
        """Read one network."""
        return self._transport.fetch(Network, "GET", f"/v1/networks/{segment(ref)}")

    def connect(self, ref: str, instance: str, endpoint: EndpointRequest | None = None) -> None:
        """Put an instance on a network, running or not."""
        wish = ConnectRequest(instance=instance, endpoint=endpoint)
        self._transport.call("POST", f"/v1/networks/{segment(ref)}/connect", body=wish)

    def disconnect(self, ref: str, instance: str) -> None:
        """Take an instance from a network, running or not."""
        wish = ConnectRequest(instance=instance)
        self._transport.call("POST", f"/v1/networks/{segment(ref)}/disconnect", body=wish)

    def why(self, source: str, target: str, port: int, protocol: str = "tcp", *, ipv6: bool = False) -> Way:
        """Tell what becomes of a connection between instances, `host`, `world` and addresses."""
        query: Query = {"source": source, "target": target, "port": port, "protocol": protocol, "ipv6": ipv6}
        return self._transport.fetch(Way, "GET", "/v1/network-path", query)

    def remove(self, ref: str) -> None:
        """Remove a network. Raises `Conflict` while an instance is attached."""
        self._transport.call("DELETE", f"/v1/networks/{segment(ref)}")
