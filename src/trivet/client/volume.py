"""Volumes and their snapshots, as the client sees them. What takes long yields `Progress`, the last has the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trivet.client.connection import Body, Response
from trivet.client.image import TAR
from trivet.client.schema_progress import Progress
from trivet.client.schema_volume import Volume, VolumeRequest, VolumeSnapshot
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

    def resize(self, name: str, size: str) -> Volume:
        """Let a volume with a size hold more."""
        return self._transport.fetch(Volume, "POST", f"/v1/volumes/{segment(name)}/resize", {"size": size})

    def snapshots(self, volume: str = "") -> Sequence[VolumeSnapshot]:
        """List a volume's snapshots, or all."""
        return self._transport.fetch(tuple[VolumeSnapshot, ...], "GET", "/v1/volume-snapshots", {"volume": volume})

    def snapshot(self, volume: str, name: str = "") -> Iterator[Progress]:
        """Take a snapshot, named after the time unless told otherwise; the result is a `VolumeSnapshot`."""
        return self._progress(volume, "snapshots", {"name": name})

    def remove_snapshot(self, volume: str, name: str) -> None:
        """Remove a snapshot."""
        self._transport.call("DELETE", f"/v1/volumes/{segment(volume)}/snapshots/{segment(name)}")

    def clone(self, volume: str, target: str, *, snapshot: str = "") -> Iterator[Progress]:
        """Make a new volume of a snapshot, or of the volume as it is."""
        return self._progress(volume, "clone", {"target": target, "snapshot": snapshot})

    def rollback(self, volume: str, snapshot: str) -> Iterator[Progress]:
        """Make a volume what it was. Raises `Conflict` while an instance that uses it runs."""
        return self._progress(volume, "rollback", {"snapshot": snapshot})

    def rename(self, volume: str, name: str) -> None:
        """Rename a volume that no instance uses."""
        self._transport.call("POST", f"/v1/volumes/{segment(volume)}/rename", {"name": name})

    def export(self, volume: str, *, snapshot: str = "") -> Response:
        """Read a volume, or a snapshot of it, as a tar."""
        return self._transport.request("GET", f"/v1/volumes/{segment(volume)}/export", {"snapshot": snapshot})

    def import_(self, volume: str, archive: Body) -> Iterator[Progress]:
        """Make a new volume of a tar."""
        return self._progress(volume, "import", {}, archive)

    def push(self, volume: str, snapshot: str, reference: str) -> Iterator[Progress]:
        """Send a snapshot to a registry; the result has name and digest."""
        return self._progress(volume, "push", {"snapshot": snapshot, "reference": reference})

    def pull(self, reference: str, volume: str) -> Iterator[Progress]:
        """Fetch a snapshot from a registry; the result tells whether it made the volume (`restored`)."""
        return self._progress(volume, "pull", {"reference": reference})

    def _progress(
        self, volume: str, action: str, query: Mapping[str, str], archive: Body | None = None
    ) -> Iterator[Progress]:
        path = f"/v1/volumes/{segment(volume)}/{action}"
        headers = {"Content_Type": TAR} if archive is not None else {}
        return self._transport.progress("POST", path, query, archive, **headers)
