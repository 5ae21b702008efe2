"""What a host shows its fleet's store, and whom it believes: certificates, read again when their files change."""

from __future__ import annotations

import http.client
import logging
import ssl
from contextlib import suppress
from pathlib import Path

from trivet.base.error import InvalidArgument

log = logging.getLogger(__name__)

OPTIONS = "--store-cert FILE --store-key FILE"
_UNKNOWN_TO_THEM = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "CERTIFICATE_EXPIRED", "UNKNOWN")
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


class Credentials:
    """Files in PEM: of the authority ("" for the host's), our certificate, and its key ("" if it is in there too).

    Raises `InvalidArgument` when they can't be used. May be asked from any thread.
    """

    def __init__(self, authority: str, certificate: str, key: str) -> None:
        if key and not certificate:
            raise InvalidArgument("cannot use a key for the fleet's store without its certificate", hint=OPTIONS)
        self._files = authority, certificate, key
        self._seen = self._state()
        self._made = self._make()

    def context(self) -> ssl.SSLContext:
        """Return what to connect with: certificates live short, and an engine long."""
        state = self._state()
        if state != self._seen:
            try:
                self._made = self._make()
                self._seen = state
            except InvalidArgument as error:  # half of them written
                log.warning("%s: those read before are used", error)
        return self._made

    def _state(self) -> list[tuple[int, int]]:
        found = []
        for file in filter(None, self._files):
            with suppress(OSError):
                status = Path(file).stat()
                found.append((status.st_ino, status.st_mtime_ns))
        return found

    def _make(self) -> ssl.SSLContext:
        authority, certificate, key = self._files
        try:
            for file in filter(None, self._files):
                Path(file).open("rb").close()  # the next lines would not say which one can't be read
            made = ssl.create_default_context(cafile=authority or None)
            if certificate:
                made.load_cert_chain(certificate, key or None, _no_password)
        except OSError as error:  # SSLError is one
            reason = error.reason.lower().replace("_", " ") if isinstance(error, ssl.SSLError) and error.reason else ""
            file = error.filename or " or ".join(filter(None, self._files))
            cause = reason or error.strerror
            raise InvalidArgument(f"cannot use the certificates for the fleet's store: {file}: {cause}") from error
        return made


def explain(error: Exception) -> tuple[str, str]:
    """Say why a member can't be spoken to, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message.rstrip('.')}", "--store-ca FILE"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if isinstance(error, ssl.SSLEOFError) or any(reason.endswith(word) for word in _UNKNOWN_TO_THEM):
            return "it does not accept our certificate", OPTIONS
        if reason in _NOT_TLS:
            return "it does not speak TLS", "etcd:// in place of etcds://"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it hung up", "etcds:// for a store that speaks TLS"
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__, ""


def _no_password() -> str:
    raise InvalidArgument(
        "cannot use the key for the fleet's store: it needs a password, and nobody is here to give it"
    )
