"""Images, as the client sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from trivet.client.connection import Body, Response
from trivet.client.schema_build import BuildRequest
from trivet.client.schema_image import Image, ImageDetail
from trivet.client.schema_progress import Progress
from trivet.client.schema_removal import Removed
from trivet.client.transport import Query, Transport, filters, segment

TAR = "application/x-tar"
BYTES = "application/octet-stream"


class Images:
    """`/v1/images` and `/v1/build`. Long operations yield `Progress`; the last one has the `result`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, wanted: Mapping[str, Sequence[str]] | None = None) -> list[Image]:
        """List images."""
        return self._transport.fetch(list[Image], "GET", "/v1/images", {"filter": filters(wanted)})

    def get(self, ref: str) -> ImageDetail:
        """Read one image with its configuration and layers."""
        return self._transport.fetch(ImageDetail, "GET", f"/v1/images/{segment(ref)}")

    def bill(self, ref: str) -> Mapping[str, object]:
        """Tell which packages an image holds, as SPDX 2.3 JSON."""
        return self._transport.fetch(dict[str, object], "GET", f"/v1/images/{segment(ref)}/sbom")

    def remove(self, ref: str, *, force: bool = False) -> Removed:
        """Take a name away, and the image itself with its last name."""
        return self._transport.fetch(Removed, "DELETE", f"/v1/images/{segment(ref)}", {"force": force})

    def why(self, digest: str) -> Sequence[str]:
        """Tell what keeps a blob: the chain from it up to who needs it; empty if nobody does."""
        return self._transport.fetch(tuple[str, ...], "GET", f"/v1/content/{segment(digest)}/why")

    def tag(self, ref: str, target: str) -> None:
        """Give an image a further name."""
        self._transport.call("POST", f"/v1/images/{segment(ref)}/tag", {"target": target})

    def pull(
        self, reference: str, *, platform: str = "", all_platforms: bool = False, referrers: bool = False
    ) -> Iterator[Progress]:
        """Fetch an image, perhaps with all of its index and what is told of it; the result has name, id and digest."""
        query: Query = {"reference": reference, "platform": platform}
        query = {**query, "all_platforms": all_platforms, "referrers": referrers}
        return self._transport.progress("POST", "/v1/images/pull", query)

    def push(self, reference: str, *, all_platforms: bool = False) -> Iterator[Progress]:
        """Send an image to the registry its name says, perhaps whole or not at all; the result has name and digest."""
        query: Query = {"reference": reference, "all_platforms": all_platforms}
        return self._transport.progress("POST", "/v1/images/push", query)

    def load(self, archive: Body) -> Iterator[Progress]:
        """Read a docker-archive or OCI-layout tar; the result has names."""
        return self._transport.progress("POST", "/v1/images/load", body=archive, Content_Type=TAR)

    def save(self, names: Sequence[str], *, format: str = "docker", all_platforms: bool = False) -> Response:
        """Write images as one tar of `format` docker or oci."""
        query: Query = {"name": list(names), "format": format, "all_platforms": all_platforms}
        return self._transport.request("GET", "/v1/images/save", query)

    def import_(
        self, archive: Body, reference: str = "", *, changes: Sequence[str] = (), message: str = ""
    ) -> Iterator[Progress]:
        """Make an image of one layer from the tar of a root file system."""
        query = {"reference": reference, "change": list(changes), "message": message}
        return self._transport.progress("POST", "/v1/images/import", query, archive, Content_Type=TAR)

    def import_disk(
        self, file: Body, reference: str = "", *, format: str, platform: str = "", firmware: str = "", name: str = ""
    ) -> Iterator[Progress]:
        """Make an image of a disk image file of `format`, called `name` in messages."""
        query = {"reference": reference, "format": format, "platform": platform, "firmware": firmware, "file": name}
        return self._transport.progress("POST", "/v1/images/import", query, file, Content_Type=BYTES)

    def export_disk(self, ref: str, *, format: str, compress: bool = False) -> Response:
        """Read a disk image as a file of `format`."""
        return self._transport.request(
            "GET", f"/v1/images/{segment(ref)}/disk", {"format": format, "compress": compress}
        )

    def build(self, context: Body, request: BuildRequest) -> Iterator[Progress]:
        """Build from a tar of the context; the result has id and names."""
        header = _ascii(msgspec.json.encode(request).decode())
        return self._transport.progress("POST", "/v1/build", body=context, Content_Type=TAR, Trivet_Build=header)


def _ascii(text: str) -> str:
    """Escape what isn't ASCII in JSON, as a header must be."""
    if text.isascii():
        return text
    import json  # few requests have such names

    return json.dumps(json.loads(text))
