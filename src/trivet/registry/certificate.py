"""Certificates per registry, where Docker and podman keep them: `certs.d/HOST[:PORT]/`.

    *.crt                 certificate authorities trusted for this registry, besides the system's
    *.cert with *.key     who we are to it (mutual TLS)

There is no way to leave the verification out.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from trivet.base.error import InvalidArgument

DIRECTORIES = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def context(domain: str) -> ssl.SSLContext | None:
    """Make the TLS settings for a registry; None for the usual ones. Raises `InvalidArgument` naming a bad file."""
    directory = next((each / domain for each in DIRECTORIES if (each / domain).is_dir()), None)
    if directory is None:
        return None
    made = ssl.create_default_context()
    for authority in sorted(directory.glob("*.crt")):
        _load(authority, lambda file: made.load_verify_locations(file))
    for certificate in sorted(directory.glob("*.cert")):
        _load(certificate, lambda file: made.load_cert_chain(file, file.with_suffix(".key")))
    return made


def _load(file: Path, load: Callable[[Path], object]) -> None:
    try:
        load(file)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidArgument(f"certificate {file} cannot be used: {error.strerror or error}") from error
