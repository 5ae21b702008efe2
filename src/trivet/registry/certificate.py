"""Certificates per registry, where Docker and podman keep them: `certs.d/HOST[:PORT]/`.

    *.crt                 certificate authorities trusted for this registry, besides the system's
    *.cert with *.key     who we are to it (mutual TLS)

For this machine's own registries what they announce (`announce`) is trusted too. There is no way to
leave the verification out.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

from trivet.base.error import InvalidArgument
from trivet.registry.announce import announced

DIRECTORIES = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def context(domain: str) -> ssl.SSLContext | None:
    """Make the TLS settings for a registry; None for the usual ones. Raises `InvalidArgument` naming a bad file."""
    directory = next((each / domain for each in DIRECTORIES if (each / domain).is_dir()), None)
    own = announced(_port(domain)) if is_local(domain) else None
    if directory is None and own is None:
        return None
    made = ssl.create_default_context()
    if own:
        _load(own, lambda file: made.load_verify_locations(file))
    if directory is None:
        return made
    for authority in sorted(directory.glob("*.crt")):
        _load(authority, lambda file: made.load_verify_locations(file))
    for certificate in sorted(directory.glob("*.cert")):
        _load(certificate, lambda file: made.load_cert_chain(file, file.with_suffix(".key")))
    return made


def is_local(domain: str) -> bool:
    """Tell whether a registry is on this machine: plain http is fine then, and no proxy is asked."""
    host = domain[1:].partition("]")[0] if domain.startswith("[") else domain.partition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _port(domain: str) -> int:
    text = domain.rpartition(":")[2]
    return int(text) if text.isascii() and text.isdigit() else 443


def _load(file: Path, load: Callable[[Path], object]) -> None:
    try:
        load(file)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidArgument(f"certificate {file} cannot be used: {error.strerror or error}") from error
