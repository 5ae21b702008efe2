"""Snapshots and clones of instances, as the client sees them."""

from __future__ import annotations

from trivet.client.schema_checkpoint import (
    Checkpoint,
    CheckpointRequest,
    Cloned,
    CloneRequest,
    Relevelled,
    RevertRequest,
)
from trivet.client.transport import Transport, segment


class Checkpoints:
    """`/v1/snapshots`, and what is below an instance. `ref` is an instance's name, id or a unique prefix of one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def take(self, ref: str, name: str = "", *, end: bool = False) -> Checkpoint:
        """Take a snapshot, with what the instance has in memory if it runs; with `end` it doesn't go on."""
        wish = CheckpointRequest(name=name, end=end)
        return self._transport.fetch(Checkpoint, "POST", f"/v1/instances/{segment(ref)}/snapshots", body=wish)

    def list(self, ref: str = "") -> list[Checkpoint]:
        """List the snapshots of one instance or of all."""
        return self._transport.fetch(list[Checkpoint], "GET", "/v1/snapshots", {"instance": ref})

    def revert(self, ref: str, name: str = "", *, idle: bool = False) -> Checkpoint:
        """Let an instance be what a snapshot ("": the newest) says; with `idle` only one that doesn't run."""
        wish = RevertRequest(name=name, idle=idle)
        return self._transport.fetch(Checkpoint, "POST", f"/v1/instances/{segment(ref)}/revert", body=wish)

    def remove(self, ref: str, name: str) -> None:
        """Remove a snapshot."""
        self._transport.call("DELETE", f"/v1/instances/{segment(ref)}/snapshots/{segment(name)}")

    def relevel(self, ref: str, level: str) -> Relevelled:
        """Change an instance's isolation level."""
        path = f"/v1/instances/{segment(ref)}/relevel"
        return self._transport.fetch(Relevelled, "POST", path, {"isolation": level})

    def clone(self, ref: str, wish: CloneRequest) -> Cloned:
        """Make copies of an instance, running if it runs."""
        return self._transport.fetch(Cloned, "POST", f"/v1/instances/{segment(ref)}/clone", body=wish)
