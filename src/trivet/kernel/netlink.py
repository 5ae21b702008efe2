"""Netlink: requests to the kernel as bytes, answers as attributes.

    nlmsghdr    u32 length, u16 type, u16 flags, u32 sequence, u32 port
    nlattr      u16 length, u16 type, payload, padded to four bytes
    nlmsgerr    i32 errno (negative), then the header of the request, then extended-ack attributes

What is sent in one `Socket.send` is one system call; the kernel works through it in order. The
families are `rtnetlink.py` (links, addresses, routes) and `nftables.py` (elements of maps).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")

REQUEST, ACK, DUMP = 0x001, 0x004, 0x300
EXCLUSIVE, CREATE = 0x200, 0x400

_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_CAPPED, _ACK_ATTRIBUTES = 0x100, 0x200
_ERROR_TEXT = 1
_TYPE_MASK = 0x3FFF
_NESTED = 0x8000
_TIMEOUT = 10.0


class Request(NamedTuple):
    """One message; `object` names what it is about, for the error."""

    type: int
    payload: bytes
    flags: int = REQUEST | ACK
    object: str = ""


def attribute(kind: int, value: bytes | int | str) -> bytes:
    """Build one attribute: an int is a native u32, a str ends with a zero byte."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Build an attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def pairs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a run of attributes in order. A malformed rest is ignored."""
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        if not ATTRIBUTE.size <= length <= len(data):
            return
        yield kind & _TYPE_MASK, data[ATTRIBUTE.size : length]
        data = data[length + (-length % 4) :]


def find(data: bytes, offset: int, *kinds: int) -> list[bytes]:
    """Read the first attribute of each kind from `offset` on, empty where there is none; quicker than splitting all."""
    found = [b""] * len(kinds)
    while offset + ATTRIBUTE.size <= len(data) and not all(found):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if not ATTRIBUTE.size <= length <= len(data) - offset:
            break
        if (kind := kind & _TYPE_MASK) in kinds and not found[place := kinds.index(kind)]:
            found[place] = data[offset + ATTRIBUTE.size : offset + length]
        offset += length + (-length % 4)
    return found


def attributes(data: bytes) -> dict[int, bytes]:
    """Split a run of attributes; of several of one type the last counts."""
    return dict(pairs(data))


def text(value: bytes) -> str:
    """Read a string attribute."""
    return value.rstrip(b"\0").decode(errors="replace")


def number(value: bytes) -> int:
    """Read a native u32 attribute."""
    return int(struct.unpack("=I", value)[0])


class Socket:
    """A netlink socket of one protocol (NETLINK_ROUTE, NETLINK_NETFILTER), in the caller's network namespace."""

    def __init__(self, protocol: int) -> None:
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(_TIMEOUT)
            for option in (_CAP_ACK, _EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Socket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, *requests: Request) -> None:
        """Send requests and wait for every acknowledgement.

        Raises the first refusal as an `OSError` whose filename is the request's object; later
        requests of a route batch were carried out all the same, an nftables batch as a whole was not.
        """
        waiting: dict[int, Request] = {}
        others: dict[int, Request] = {}
        failures: list[OSError] = []
        message = b""
        for request in requests:
            message += self._encode(request)
            (waiting if request.flags & ACK else others)[self._sequence] = request
        self._socket.send(message)
        while waiting:
            for kind, flags, sequence, payload in self._receive():
                if kind != _ERROR:
                    continue
                request_ = waiting.pop(sequence, None)
                code = -struct.unpack_from("=i", payload)[0]
                if code and (request_ or sequence in others):
                    failures.append(_failure(code, flags, payload, request_ or others[sequence]))
                if code and sequence in others:  # the frame of a batch: nothing inside it will be answered
                    waiting.clear()
        if failures:
            raise failures[0]

    def dump(self, request: Request) -> Iterator[bytes]:
        """Send a request and yield the payloads of the answers, up to the end of the list."""
        self._socket.send(self._encode(request))
        expected = self._sequence
        while True:
            for kind, flags, sequence, payload in self._receive():
                if sequence != expected:
                    continue
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if code:
                        raise _failure(code, flags, payload, request)
                    return
                yield payload

    def _encode(self, request: Request) -> bytes:
        self._sequence += 1
        size = HEADER.size + len(request.payload)
        return HEADER.pack(size, request.type, request.flags, self._sequence, 0) + request.payload + bytes(-size % 4)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(1 << 18)
        while len(data) >= HEADER.size:
            length, kind, flags, sequence, _ = HEADER.unpack_from(data)
            if not HEADER.size <= length <= len(data):
                return
            yield kind, flags, sequence, data[HEADER.size : length]
            data = data[length + (-length % 4) :]


def _failure(code: int, flags: int, payload: bytes, request: Request) -> OSError:
    """Build the OSError of a refusal, with the kernel's own words where it gave some."""
    said = os.strerror(code)
    if flags & _ACK_ATTRIBUTES and flags & _CAPPED:
        extended = attributes(payload[4 + HEADER.size :]).get(_ERROR_TEXT)
        if extended:
            said = f"{said}: {text(extended)}"
    return OSError(code, said, request.object or None)
