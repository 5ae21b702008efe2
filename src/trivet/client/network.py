"""Networks, as the client sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trivet.client.schema_network import ConnectRequest, EndpointRequest, Network, NetworkRequest
from trivet.client.schema_path import Way
from trivet.client.schema_policy import Flow, PolicyOutcome, PolicyRequest
from trivet.client.transport import Query, Transport, filters, segment

POLICIES = "/v1/network-policies"


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

    def apply_policy(self, request: PolicyRequest, *, dry_run: bool = False) -> PolicyOutcome:
        """Put a policy in force, in place of one of its name; with `dry_run` only tell what would change."""
        return self._transport.fetch(PolicyOutcome, "POST", POLICIES, {"dry_run": dry_run}, request)

    def policies(self) -> Sequence[PolicyRequest]:
        """List policies."""
        return self._transport.fetch(tuple[PolicyRequest, ...], "GET", POLICIES)

    def policy(self, name: str) -> PolicyRequest:
        """Read one policy."""
        return self._transport.fetch(PolicyRequest, "GET", f"{POLICIES}/{segment(name)}")

    def remove_policy(self, name: str, *, dry_run: bool = False) -> PolicyOutcome:
        """Take a policy out of force; with `dry_run` only tell what would change."""
        return self._transport.fetch(PolicyOutcome, "DELETE", f"{POLICIES}/{segment(name)}", {"dry_run": dry_run})

    def flows(self, *, follow: bool = False) -> Iterator[Flow]:
        """Read what policies decided, and with `follow` what they go on deciding."""
        return self._transport.stream(Flow, "GET", "/v1/network-flows", {"follow": follow})

    def remove(self, ref: str) -> None:
        """Remove a network. Raises `Conflict` while an instance is attached."""
        self._transport.call("DELETE", f"/v1/networks/{segment(ref)}")
