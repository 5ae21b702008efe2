"""Artifacts, as the client sees them: files in a registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trivet.client.connection import Body, Response
from trivet.client.image import TAR
from trivet.client.schema_image import Referrer
from trivet.client.schema_progress import Progress
from trivet.client.transport import Transport


class Artifacts:
    """`/v1/artifacts`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def push(
        self,
        reference: str,
        files: Body,
        types: Sequence[str],
        *,
        artifact_type: str = "",
        annotations: Mapping[str, str] | None = None,
        attach: bool = False,
    ) -> Iterator[Progress]:
        """Send the files of a tar to a registry, or `attach` them to what the reference means there.

        `types` are their media types in order. The result has name and digest.
        """
        query = {
            "reference": reference,
            "type": list(types),
            "artifact_type": artifact_type,
            "annotation": [f"{key}={value}" for key, value in (annotations or {}).items()],
        }
        path = "/v1/artifacts/attach" if attach else "/v1/artifacts/push"
        return self._transport.progress("POST", path, query, files, Content_Type=TAR)

    def pull(self, reference: str) -> Response:
        """Read an artifact's files as a tar."""
        return self._transport.request("GET", "/v1/artifacts/pull", {"reference": reference})

    def referrers(self, reference: str, *, artifact_type: str = "") -> list[Referrer]:
        """List what refers to what a name means in its registry."""
        query = {"reference": reference, "artifact_type": artifact_type}
        return self._transport.fetch(list[Referrer], "GET", "/v1/artifacts/referrers", query)
