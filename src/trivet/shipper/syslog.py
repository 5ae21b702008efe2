"""syslog, in the old form (RFC 3164) and the new one (RFC 5424), over datagrams, streams and TLS (RFC 5425)."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from datetime import datetime

from trivet.base.clock import rfc3339
from trivet.launch.log import Record
from trivet.shipper import address, option
from trivet.shipper.address import Address
from trivet.shipper.book import Entry

SEVERITY = {"stdout": 6, "stderr": 3}
DAEMON = 3


class Syslog:
    """Sends to one syslog. A datagram or a stream tells nothing of its arrival: what breaks off is sent again."""

    def __init__(self, entry: Entry) -> None:
        options = entry.options
        self._address = Address.syslog(options.get("syslog-address", ""))
        self._facility = option.facility(options.get("syslog-facility") or str(DAEMON))
        self._form = options.get("syslog-format", "")
        self._tag, self._options = entry.tag, options
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._link: socket.socket | None = None

    def send(self, records: Sequence[Record]) -> None:
        """Send each record."""
        if self._link is not None and self._address.stream and address.gone(self._link):
            self.close()
        if self._link is None:
            self._link = self._address.connect(self._tls() if self._address.kind == "tls" else None)
        messages = [self._framed(self._message(record)) for record in records]
        for message in [b"".join(messages)] if self._address.stream else messages:
            self._link.sendall(message)

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _message(self, record: Record) -> bytes:
        priority = f"<{self._facility * 8 + SEVERITY[record.stream]}>"
        if self._form.startswith("rfc5424"):
            precise = rfc3339(record.time)
            moment = f"{precise[:26]}Z" if self._form.endswith("micro") else f"{precise[:19]}Z"
            head = f"{priority}1 {moment} {self._host} {_word(self._tag, 48)} {self._pid} {_word(self._tag, 32)} - "
        else:
            moment = datetime.fromtimestamp(record.time // 1_000_000_000).astimezone().strftime("%b %e %H:%M:%S")
            host = f"{self._host} " if self._form or self._address.kind not in ("", "unix", "unixgram") else ""
            head = f"{priority}{moment} {host}{_word(self._tag, 128)}[{self._pid}]: "
        return head.encode() + record.content.removesuffix(b"\n")

    def _framed(self, message: bytes) -> bytes:
        """Bound a message: by its length before it over TLS in the new form, else by a line's end."""
        if self._address.kind == "tls" and self._form.startswith("rfc5424"):
            return str(len(message)).encode() + b" " + message
        return message.replace(b"\n", b" ") + b"\n" if self._address.stream else message

    def _tls(self) -> ssl.SSLContext:
        options = self._options
        context = ssl.create_default_context(cafile=options.get("syslog-tls-ca-cert") or None)
        if options.get("syslog-tls-skip-verify"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if options.get("syslog-tls-cert"):
            context.load_cert_chain(options["syslog-tls-cert"], options.get("syslog-tls-key") or None)
        return context


def _word(text: str, longest: int) -> str:
    """Make one visible word of a tag: a space would end the field."""
    return "".join(each if "!" <= each <= "~" else "_" for each in text)[:longest] or "-"
