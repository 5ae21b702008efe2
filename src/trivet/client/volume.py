"""Volumes, as the client sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trivet.client.schema import Volume, VolumeRequest
from trivet.client.transport import Transport, filters, segment


class Volumes:
    """`/v1/volumes`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, request: VolumeRequest) -> Volume:
        """Make a volume."""
        return self._transport.fetch(Volume, "POST", "/v1/volumes", body=request)

    def list(self, wanted: Mapping[str, Sequence[str]] | None = None) -> list[Volume]:
        """List volumes."""
        return self._transport.fetch(list[Volume], "GET", "/v1/volumes", {"filter": filters(wanted)})

    def get(self, name: str) -> Volume:
        """Read one volume."""
        return self._transport.fetch(Volume, "GET", f"/v1/volumes/{segment(name)}")

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its data. Raises `Conflict` while an instance uses it."""
        self._transport.call("DELETE", f"/v1/volumes/{segment(name)}", {"force": force})
