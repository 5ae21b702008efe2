"""Names of the OCI image layout: files of a directory or tar that holds images (image-spec image-layout.md)."""

from __future__ import annotations

from pathlib import PurePosixPath

from trivet.oci import digest

MARKER = "oci-layout"
MARKER_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
INDEX = "index.json"
BLOBS = "blobs"

# Annotations of a manifest in index.json: the name of the image, as the specification and as containerd write it.
REFERENCE_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"


def blob(of: str) -> PurePosixPath:
    """Tell where a blob lies below the layout. Raises `MalformedDigest`."""
    algorithm, digits = digest.split(of)
    return PurePosixPath(BLOBS, algorithm, digits)
