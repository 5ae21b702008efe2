"""Receivers of logs, as simple as their protocols allow."""

from __future__ import annotations

import array
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec


class Receiver:
    """A socket of the tests' own and what it has received so far; streams are read until they end."""

    def __init__(
        self, place: str | tuple[str, int], kind: socket.SocketKind, tls: ssl.SSLContext | None = None
    ) -> None:
        family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
        self.got: list[bytes] = []
        self.reply: Callable[[bytes], bytes] | None = None
        self._tls = tls
        self._links: list[socket.socket] = []
        self._socket = socket.socket(family, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if isinstance(place, str):
            Path(place).unlink(missing_ok=True)
        self._socket.bind(place)
        self.place: Any = self._socket.getsockname()
        stream = kind is socket.SOCK_STREAM
        if stream:
            self._socket.listen()
        threading.Thread(target=self._streams if stream else self._datagrams, daemon=True).start()

    @property
    def text(self) -> str:
        """All that was received."""
        return b"".join(self.got).decode(errors="replace")

    def await_text(self, words: str, patience: float = 15) -> str:
        """Wait until something was received; all of it."""
        deadline = time.monotonic() + patience
        while words not in self.text:
            assert time.monotonic() < deadline, f"{words!r} is not in {self.text[-2000:]!r}"
            time.sleep(0.02)
        return self.text

    def close(self) -> None:
        """Go away, with all connections."""
        for link in (self._socket, *self._links):
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            link.close()

    def _streams(self) -> None:
        while True:
            try:
                link = self._socket.accept()[0]
                link = self._tls.wrap_socket(link, server_side=True) if self._tls else link
            except OSError:
                if self._socket.fileno() < 0:
                    return
                continue
            self._links.append(link)
            threading.Thread(target=self._one, args=[link], daemon=True).start()

    def _one(self, link: socket.socket) -> None:
        try:
            while data := link.recv(1 << 16):
                self.got.append(data)
                if self.reply and (answer := self.reply(data)):
                    link.sendall(answer)
        except OSError:
            pass

    def _datagrams(self) -> None:
        try:
            while True:
                data, rights, _, _ = self._socket.recvmsg(1 << 16, socket.CMSG_SPACE(4))
                for _, _, packed in rights:
                    descriptor = array.array("i", packed)[0]
                    data = os.pread(descriptor, 1 << 20, 0)
                    os.close(descriptor)
                if not data and self._socket.fileno() < 0:
                    return
                self.got.append(data)
        except OSError:
            pass


def journal_fields(message: bytes) -> dict[str, str]:
    """Take a message of journald's native protocol apart."""
    found = {}
    while message:
        line, _, message = message.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", message[:8])
            value, message = message[8 : 8 + length], message[9 + length :]
        found[key.decode()] = value.decode()
    return found


def forwarded(data: bytes) -> list[tuple[str, Any, dict[str, str]]]:
    """Take messages of fluentd's forward protocol apart: tag, time, record."""
    found = []
    decoder = msgspec.msgpack.Decoder()
    while data:
        end = next(end for end in range(1, len(data) + 1) if _whole(decoder, data[:end]))
        tag, events, _ = decoder.decode(data[:end])
        data = data[end:]
        found += [(tag, moment, record) for moment, record in events]
    return found


def _whole(decoder: msgspec.msgpack.Decoder[Any], data: bytes) -> bool:
    try:
        decoder.decode(data)
    except msgspec.DecodeError:
        return False
    return True
