"""fluentd's forward protocol, version 1: MessagePack over a stream, `[tag, [[time, record], …], options]`."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from trivet.launch.log import Record
from trivet.shipper import address, option
from trivet.shipper.address import Address
from trivet.shipper.book import Entry

HERE = "127.0.0.1:24224"
SECOND = 1_000_000_000
REPLY = 1 << 12


class Fluentd:
    """Sends to one fluentd. With `fluentd-request-ack` what it hasn't said it has is sent again."""

    def __init__(self, entry: Entry) -> None:
        options = entry.options
        self._address = Address.fluentd(options.get("fluentd-address") or HERE)
        self._precise = option.flag(options.get("fluentd-sub-second-precision") or "false")
        self._acknowledged = option.flag(options.get("fluentd-request-ack") or "false")
        self._tag = entry.tag
        self._facts = {"container_id": entry.id, "container_name": f"/{entry.name}", **entry.extra}
        self._link: socket.socket | None = None

    def send(self, records: Sequence[Record]) -> None:
        """Send the records as one message."""
        if self._link is not None and address.gone(self._link):
            self.close()
        if self._link is None:
            self._link = self._address.connect(ssl.create_default_context() if self._address.kind == "tls" else None)
        chunk = base64.b64encode(os.urandom(16)).decode() if self._acknowledged else ""
        options: dict[str, Any] = {"size": len(records), **({"chunk": chunk} if chunk else {})}
        self._link.sendall(msgspec.msgpack.encode([self._tag, [self._event(each) for each in records], options]))
        if chunk:
            self._wait(self._link, chunk)

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _event(self, record: Record) -> list[Any]:
        seconds, rest = divmod(record.time, SECOND)
        moment: Any = msgspec.msgpack.Ext(0, struct.pack(">II", seconds, rest)) if self._precise else seconds
        text = record.content.removesuffix(b"\n").decode(errors="replace")
        partial = {"partial_message": "true"} if record.partial else {}
        return [moment, {**self._facts, "source": record.stream, "log": text, **partial}]

    def _wait(self, link: socket.socket, chunk: str) -> None:
        """Wait until the receiver says that it has a chunk. Raises OSError."""
        reply = link.recv(REPLY)
        try:
            told = msgspec.msgpack.decode(reply, type=dict[str, str])
        except msgspec.DecodeError as error:
            raise ConnectionError(f"fluentd answers {reply[:40]!r}") from error
        if told.get("ack") != chunk:
            raise ConnectionError("fluentd acknowledges something else")
