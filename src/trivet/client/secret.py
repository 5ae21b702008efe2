"""Secrets, as the client sees them."""

from __future__ import annotations

from collections.abc import Mapping

from trivet.client.schema_secret import Secret, SecretRequest
from trivet.client.transport import Transport, segment


class Secrets:
    """`/v1/secrets`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, data: bytes, labels: Mapping[str, str] | None = None) -> Secret:
        """Keep a secret."""
        request = SecretRequest(name=name, data=data, labels=dict(labels or {}))
        return self._transport.fetch(Secret, "POST", "/v1/secrets", body=request)

    def list(self) -> list[Secret]:
        """List them."""
        return self._transport.fetch(list[Secret], "GET", "/v1/secrets")

    def get(self, ref: str) -> Secret:
        """Describe one."""
        return self._transport.fetch(Secret, "GET", f"/v1/secrets/{segment(ref)}")

    def remove(self, ref: str) -> None:
        """Forget one. Raises `Conflict` while an instance has it."""
        self._transport.call("DELETE", f"/v1/secrets/{segment(ref)}")
