"""Registries, as the client sees them."""

from __future__ import annotations

from trivet.client.schema_image import LoginRequest
from trivet.client.transport import Transport


class Registries:
    """`/v1/registries`: what the engine knows about others' registries."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def login(self, request: LoginRequest) -> str:
        """Try a name and password at a registry; the engine remembers them. Returns the file they are in."""
        return self._transport.fetch(dict[str, str], "POST", "/v1/registries/login", body=request)["file"]

    def logout(self, registry: str) -> bool:
        """Forget a registry's name and password; tell whether there were any."""
        query = {"registry": registry}
        return self._transport.fetch(dict[str, bool], "POST", "/v1/registries/logout", query)["known"]
