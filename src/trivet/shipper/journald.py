"""journald's native protocol (systemd.io, "Native Journal Protocol"): fields of a record in one datagram."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence

from trivet.base.clock import rfc3339
from trivet.launch.log import Record
from trivet.shipper.book import Entry

PRIORITY = {"stdout": "6", "stderr": "3"}
FIELD = 64  # characters of a field's name that journald takes
PATIENCE = 5.0


class Journald:
    """Sends to the journal's socket; what is too long for a datagram goes in a sealed memory file."""

    def __init__(self, entry: Entry, place: str) -> None:
        self._place = place
        self._link: socket.socket | None = None
        self._fields = {
            "CONTAINER_ID": entry.id[:12],
            "CONTAINER_ID_FULL": entry.id,
            "CONTAINER_NAME": entry.name,
            "CONTAINER_TAG": entry.tag,
            "IMAGE_NAME": entry.image,
            "SYSLOG_IDENTIFIER": entry.tag,
            **{_name(key): value for key, value in entry.extra.items()},
        }

    def send(self, records: Sequence[Record]) -> None:
        """Send each record."""
        if self._link is None:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            link.settimeout(PATIENCE)
            self._link = link
        for record in records:
            self._one(self._link, self._message(record))

    def close(self) -> None:
        """Close the socket."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _message(self, record: Record) -> bytes:
        fields = {
            **self._fields,
            "PRIORITY": PRIORITY[record.stream],
            "SYSLOG_TIMESTAMP": rfc3339(record.time),
            **({"CONTAINER_PARTIAL_MESSAGE": "true"} if record.partial else {}),
        }
        named = {"MESSAGE": record.content.removesuffix(b"\n"), **{key: each.encode() for key, each in fields.items()}}
        return b"".join(_spelled(key, value) for key, value in named.items())

    def _one(self, link: socket.socket, message: bytes) -> None:
        try:
            link.sendto(message, self._place)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._long(link, message)

    def _long(self, link: socket.socket, message: bytes) -> None:
        descriptor = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(descriptor, message)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
            link.sendmsg([b""], [rights], 0, self._place)
        finally:
            os.close(descriptor)


def _spelled(key: str, value: bytes) -> bytes:
    """Spell a field; the length stands before a value with line ends."""
    name = key.encode()
    if b"\n" not in value:
        return name + b"=" + value + b"\n"
    return name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


def _name(key: str) -> str:
    """Make a field's name of a label's: capitals, digits and underscores, no digit or underscore first."""
    word = "".join(each if each.isascii() and each.isalnum() else "_" for each in key.upper()).lstrip("_0123456789")
    return (word or "FIELD")[:FIELD]
