"""The frames of docs/launch.md from the client's side: a program's input, output and end over one socket."""

from __future__ import annotations

import struct
from _socket import MSG_DONTWAIT, socket
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

from trivet.client.problem import EngineGone, error_of_start
from trivet.launch.frame import HEADER, MAXIMUM, Type, pack

PIECE = 256 << 10


class Exit(NamedTuple):
    """How the program ended; `code` is 128+n after signal n."""

    code: int
    signal: int
    time_ns: int
    out_of_memory: bool


class Output(NamedTuple):
    """A piece of what the program wrote; `error` tells standard error from standard output."""

    error: bool
    data: bytes


Event = Output | Exit


class Decoder:
    """Cuts a byte stream into frames, and reads them."""

    def __init__(self, data: bytes = b"") -> None:
        self._buffer = bytearray(data)

    def feed(self, data: bytes) -> None:
        """Add bytes as they came."""
        self._buffer += data

    def events(self) -> Iterator[Event]:
        """Yield what is complete so far. Raises `ProgramFailed` on FAILED, `EngineGone` on nonsense."""
        while len(self._buffer) >= HEADER.size:
            kind, _, _, length = HEADER.unpack_from(self._buffer)
            if length > MAXIMUM:
                raise EngineGone(f"the engine sent a frame of {length} bytes, more than the {MAXIMUM} allowed")
            if len(self._buffer) < HEADER.size + length:
                return
            payload = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            event = _read(kind, payload)
            if event is not None:
                yield event


class Stream:
    """A conversation with one program. Use as a context manager; or `for event in stream`."""

    def __init__(self, sock: socket, received: bytes = b"") -> None:
        self._socket = sock
        self._decoder = Decoder(received)
        self._sending = bytearray()

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._socket.fileno()

    def write(self, data: bytes) -> None:
        """Queue input for the program; `flush` sends it."""
        for start in range(0, len(data), MAXIMUM):
            self._sending += pack(Type.STDIN, data[start : start + MAXIMUM])

    def end(self) -> None:
        """Queue the end of input."""
        self._sending += pack(Type.STDIN)

    def resize(self, rows: int, columns: int) -> None:
        """Queue a new terminal size."""
        self._sending += pack(Type.RESIZE, struct.pack("<HH", min(rows, 0xFFFF), min(columns, 0xFFFF)))

    def signal(self, number: int) -> None:
        """Queue a signal."""
        self._sending += pack(Type.SIGNAL, struct.pack("<I", number))

    @property
    def pending(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._sending)

    def flush(self, *, wait: bool = True) -> None:
        """Send what is queued; with `wait` False only as much as goes out at once."""
        flags = 0 if wait else MSG_DONTWAIT
        try:
            while self._sending:
                del self._sending[: self._socket.send(self._sending, flags)]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._sending.clear()  # the other side hung up; reading tells how it ended

    def received(self) -> Iterator[Event]:
        """Yield what is there without waiting, first what came with the answer's head."""
        return self._decoder.events()

    def receive(self) -> bool:
        """Wait for bytes and take them in; False at the end of the stream."""
        try:
            data = self._socket.recv(PIECE)
        except ConnectionError:
            return False
        self._decoder.feed(data)
        return bool(data)

    def __iter__(self) -> Iterator[Event]:
        """Yield output as it comes; the exit is last. Raises `EngineGone` when it never comes."""
        more = True
        while more:
            for event in self._decoder.events():
                yield event
                if isinstance(event, Exit):
                    return
            more = self.receive()
        raise EngineGone("the engine went away while the program was running")

    def close(self) -> None:
        """Hang up; an instance keeps running."""
        self._socket.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read(kind: int, payload: bytes) -> Event | None:
    try:
        if kind in (Type.STDOUT, Type.STDERR):
            return Output(kind == Type.STDERR, payload)
        if kind == Type.EXIT:
            code, signal, time_ns, flags = struct.unpack("<IIQI", payload)
            return Exit(code, signal, time_ns, bool(flags & 1))
        if kind == Type.FAILED:
            _, number = struct.unpack_from("<II", payload)
            raise error_of_start(number, payload[8:])
    except struct.error as error:
        raise EngineGone(f"the engine sent a malformed frame of type {kind:#x}") from error
    return None
