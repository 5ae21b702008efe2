"""The registry's own certificate authority, for where nobody has brought a certificate.

    ROOT/tls/ca.crt, ca.key           made once, for ten years; `trivet registry ca` prints the first
    ROOT/tls/server.crt, server.key   made at start, when names are missing or a month is left

`python -m trivet.registry.server.authority --root DIR` prints the authority, and makes it if there is none;
with `--name` it sees to a server's certificate too.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trivet.base.error import Corrupt, TrivetError, Unavailable

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397  # the longest that browsers and Apple's libraries accept
RENEW = timedelta(days=30)
_SKEW = timedelta(hours=1)  # clients whose clocks are late
_USES = "digital_signature content_commitment key_encipherment data_encipherment key_agreement".split()
_USES += "key_cert_sign crl_sign encipher_only decipher_only".split()


class Authority:
    """The authority below a registry's root; made if it isn't there. Raises `Corrupt`, `Unavailable`."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "tls"
        self.file = self.directory / "ca.crt"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.file.exists():
                _make_authority(self.directory)
            self._key = _load_key(self.directory / "ca.key")
            self._certificate = x509.load_pem_x509_certificate(self.file.read_bytes())
        except OSError as error:
            raise Unavailable(f"cannot use {error.filename}: {(error.strerror or str(error)).lower()}") from error
        except (ValueError, TypeError) as error:
            hint = "restore it, or remove the directory: clients must then be given the new authority"
            raise Corrupt(f"{self.directory} holds no usable authority: {error}", hint=hint) from error

    def server(self, names: Iterable[str]) -> tuple[Path, Path]:
        """Return certificate and key for a server of these names and of this machine, made anew when due."""
        wanted = sorted({*names, "localhost", "127.0.0.1", "::1", socket.gethostname().lower()} - {"0.0.0.0", "::"})
        certificate, key = self.directory / "server.crt", self.directory / "server.key"
        if not (key.exists() and self._good(certificate, wanted)):
            self._make_server(certificate, key, wanted)
        return certificate, key

    def _good(self, file: Path, wanted: list[str]) -> bool:
        try:
            found = x509.load_pem_x509_certificate(file.read_bytes())
            found.verify_directly_issued_by(self._certificate)
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # whatever is wrong with it, there is a new one
            return False
        return set(map(_name, wanted)) <= set(names) and found.not_valid_after_utc - RENEW > datetime.now(UTC)

    def _make_server(self, certificate: Path, key: Path, names: list[str]) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        made = (
            _begin("trivet registry", self._certificate.subject, private, SERVER_DAYS)
            .add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_issuer(self._certificate), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        _write(key, _pem(private))
        _write(certificate, made.public_bytes(serialization.Encoding.PEM))


def _make_authority(directory: Path) -> None:
    """Make key and certificate, the certificate last: with it everything is there."""
    private = ec.generate_private_key(ec.SECP256R1())
    # a name of its own for each: clients that trust several tell them apart
    title = f"trivet registry authority {socket.gethostname()[:20]} {os.urandom(4).hex()}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    made = (
        _begin(title, name, private, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    _write(directory / "ca.key", _pem(private))
    _write(directory / "ca.crt", made.public_bytes(serialization.Encoding.PEM))


def _begin(title: str, issuer: x509.Name, private: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)]))
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _issuer(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*wanted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in wanted for use in _USES})


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{file} is another kind of key")
    return key


def _write(file: Path, data: bytes) -> None:
    """Replace a file, for its owner only."""
    fresh = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        output.write(data)
        output.flush()
        os.fsync(output.fileno())
    fresh.replace(file)


def main() -> int:
    """Print the authority's certificate; see to a server's."""
    parser = argparse.ArgumentParser(prog="trivet registry ca", allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--name", action="append", default=[])
    args = parser.parse_args()
    try:
        authority = Authority(args.root)
        if args.name:
            authority.server(args.name)
        print(authority.file.read_text(), end="")
    except TrivetError as error:
        print(f"trivet: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
