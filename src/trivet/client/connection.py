"""HTTP/1.1 over a unix socket: one connection per request, bodies streamed in both directions.

Written out because `http.client` pulls in `ssl` and `email` (33 ms, half of what `trivet ps` takes) and
because its buffered reader swallows the first frames after `101 Switching Protocols`.
"""

from __future__ import annotations

import threading
from _socket import AF_UNIX, SHUT_RDWR, SOCK_STREAM, socket  # without the enumerations, which take a millisecond
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Protocol

from trivet.base.error import Denied
from trivet.client.problem import EngineGone

LONGEST_LINE = 64 << 10
MOST_HEADERS = 100
PIECE = 256 << 10


class Writer(Protocol):
    """Where the producer of a request body writes to."""

    def write(self, data: bytes, /) -> int:
        """Send all of `data`."""


Body = bytes | Callable[[Writer], None]


class HungUp(Exception):
    """The engine no longer listens; its answer says why."""


class Incoming:
    """Buffered reading from a socket which can hand back what it read too much."""

    def __init__(self, sock: socket, sender: Sender | None) -> None:
        self._socket = sock
        self._sender = sender
        self._buffer = bytearray()

    def some(self, maximum: int) -> bytes:
        """Read at least one byte; b"" at the end of the stream."""
        if not self._buffer and not self._fill():
            return b""
        data = bytes(self._buffer[:maximum])
        del self._buffer[:maximum]
        return data

    def line(self) -> bytes:
        """Read up to and without the next line end. Raises `EngineGone` when there is none."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LONGEST_LINE or not self._fill():
                raise EngineGone("the engine's answer broke off")
        data = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return data.rstrip(b"\r")

    def rest(self) -> bytes:
        """Take what was read but not asked for."""
        data, self._buffer = bytes(self._buffer), bytearray()
        return data

    def _fill(self) -> bool:
        try:
            data = self._socket.recv(PIECE)
        except ConnectionError as error:
            self._check_sender()
            raise EngineGone("the engine closed the connection") from error
        self._buffer += data
        if not data:
            self._check_sender()
        return bool(data)

    def _check_sender(self) -> None:
        if self._sender is not None and self._sender.error is not None:
            raise self._sender.error


class Response:
    """An answer: its body is read with `read`, `chunks` or `lines`. Use as a context manager."""

    def __init__(self, sock: socket, *, head: bool = False, sender: Sender | None = None) -> None:
        self.socket = sock
        self.incoming = Incoming(sock, sender)
        self.status = self._status()
        self.headers = dict(self._headers())
        self._chunks = self._body(head)
        self._left = b""

    def chunks(self) -> Iterator[bytes]:
        """Read the body piece by piece, as it arrives."""
        return self._chunks

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes of the body (fewer only at its end), or all of it; what `tarfile` needs."""
        parts, wanted = [self._left], size - len(self._left)
        while size < 0 or wanted > 0:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(chunk)
            wanted -= len(chunk)
        data = b"".join(parts)
        cut = len(data) if size < 0 else size
        self._left = data[cut:]
        return data[:cut]

    def lines(self) -> Iterator[bytes]:
        """Read the body line by line, without empty ones (NDJSON)."""
        pending = b""
        for chunk in self._chunks:
            *whole, pending = (pending + chunk).split(b"\n")
            yield from (line for line in whole if line.strip())
        if pending.strip():
            yield pending

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _status(self) -> int:
        words = self.incoming.line().split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise EngineGone("what answers on the engine's socket does not speak HTTP")
        if words[1] == b"100":
            list(self._headers())
            return self._status()
        return int(words[1])

    def _headers(self) -> Iterator[tuple[str, str]]:
        for _ in range(MOST_HEADERS):
            line = self.incoming.line()
            if not line:
                return
            name, _, value = line.decode("latin-1").partition(":")
            yield name.strip().lower(), value.strip()
        raise EngineGone("the engine's answer has too many headers")

    def _body(self, head: bool) -> Iterator[bytes]:
        if head or self.status in (101, 204, 304):
            return iter(())
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self._chunked()
        if (length := self.headers.get("content-length")) is not None:
            return self._exactly(_number(length, 10))
        return iter(lambda: self.incoming.some(PIECE), b"")

    def _chunked(self) -> Iterator[bytes]:
        while size := _number(self.incoming.line().partition(b";")[0].decode("latin-1"), 16):
            yield from self._exactly(size)
            self.incoming.line()
        list(self._headers())

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            data = self.incoming.some(size)
            if not data:
                raise EngineGone("the engine's answer broke off")
            size -= len(data)
            yield data


class Sender(threading.Thread):
    """Sends a request body of unknown length while the answer is read: the engine reports progress meanwhile.

    What goes wrong in the producer is kept in `error`; the connection is cut then, so that the engine
    doesn't take half a body for a whole one, and the reader raises it.
    """

    def __init__(self, sock: socket, produce: Callable[[Writer], None]) -> None:
        super().__init__(daemon=True)  # it may hang in a read of standard input when all is over
        self._socket = sock
        self._produce = produce
        self.error: BaseException | None = None

    def run(self) -> None:
        """Produce and send, to the end or until nobody listens."""
        try:
            self._produce(self)
            self._send(b"0\r\n\r\n")
        except HungUp:
            pass
        except BaseException as error:
            self.error = error
            self._socket.shutdown(SHUT_RDWR)

    def write(self, data: bytes, /) -> int:
        """Send one chunk; an empty one would end the body."""
        if data:
            self._send(b"%x\r\n" % len(data) + data + b"\r\n")
        return len(data)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise HungUp from error


def connect(path: str) -> socket:
    """Connect to the engine's socket. Raises `Denied`, and OSError when nobody listens."""
    sock = socket(AF_UNIX, SOCK_STREAM)
    try:
        sock.connect(path)
    except PermissionError as error:
        sock.close()
        hint = "run it as root, or choose another engine with --host"
        raise Denied(f"cannot open the engine's socket {path}: permission denied", hint=hint) from error
    except OSError:
        sock.close()
        raise
    return sock


def exchange(sock: socket, method: str, target: str, headers: Mapping[str, str], body: Body | None) -> Response:
    """Send one request and read the answer's head; the response owns the socket from then on."""
    try:
        try:
            sock.sendall(_head(method, target, headers, body) + (body if isinstance(body, bytes) else b""))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer says why
        sender = Sender(sock, body) if callable(body) else None
        if sender is not None:
            sender.start()
        return Response(sock, head=method == "HEAD", sender=sender)
    except BaseException:
        sock.close()
        raise


def _head(method: str, target: str, headers: Mapping[str, str], body: Body | None) -> bytes:
    fields = {"Host": "trivet", "Connection": "close", **headers}
    if callable(body):
        fields["Transfer-Encoding"] = "chunked"
    elif body is not None or method in ("POST", "PUT"):
        fields["Content-Length"] = str(len(body or b""))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError as error:
        raise EngineGone(f"the engine's answer has a malformed length {text!r}") from error
