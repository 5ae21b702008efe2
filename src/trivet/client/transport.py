"""Requests to one engine: addresses, queries, JSON shapes and errors, shared by the nouns of the client."""

from __future__ import annotations

from _socket import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from trivet.client.connection import Body, Response, connect, exchange
from trivet.client.problem import EngineGone, error_of, error_of_answer, error_of_head
from trivet.client.schema_progress import Progress

if TYPE_CHECKING:
    from trivet.client.stream import Stream

T = TypeVar("T")
Value = str | int | float | bool | Sequence[str] | None
Query = Mapping[str, Value]

SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Transport:
    """Reach the engine at `socket_path`; `start` is called once when nobody listens there."""

    def __init__(self, socket_path: str, start: Callable[[str], None] | None = None) -> None:
        self.socket_path = socket_path
        self._start = start

    def request(
        self, method: str, path: str, query: Query | None = None, body: Body | None = None, **headers: str
    ) -> Response:
        """Send a request, get a successful answer. Raises the error the engine reports, or `EngineGone`.

        Keyword arguments are headers, with underscores for hyphens.
        """
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        response = exchange(self._connect(), method, path + encode_query(query or {}), fields, body)
        if response.status < 400:
            return response
        with response:
            raise (
                error_of_head(response.status)
                if method == "HEAD"
                else error_of_answer(response.status, response.read())
            )

    def call(self, method: str, path: str, query: Query | None = None, body: msgspec.Struct | None = None) -> None:
        """Send a request whose answer holds nothing of interest."""
        self._send(method, path, query, body).close()

    def fetch(
        self, shape: type[T], method: str, path: str, query: Query | None = None, body: msgspec.Struct | None = None
    ) -> T:
        """Send a request, read the answer as `shape`."""
        with self._send(method, path, query, body) as response:
            return decode(response.read(), shape)

    def stream(self, shape: type[T], method: str, path: str, query: Query | None = None) -> Iterator[T]:
        """Send a request, read the answer's NDJSON lines as they come."""
        with self.request(method, path, query) as response:
            for line in response.lines():
                yield _item(line, shape)

    def upgrade(self, path: str, query: Query | None = None, body: msgspec.Struct | None = None) -> Stream:
        """Turn a request into a stream of frames."""
        return self.upgraded(path, query, body)[1]

    def upgraded(
        self, path: str, query: Query | None = None, body: msgspec.Struct | None = None
    ) -> tuple[Mapping[str, str], Stream]:
        """Turn a request into a stream of frames; give the answer's headers too, their names in lower case."""
        from trivet.client.stream import Stream  # few requests are upgraded

        data = msgspec.json.encode(body) if body is not None else None
        headers = {"Connection": "Upgrade", "Upgrade": "trivet-stream", "Content_Type": "application/json"}
        response = self.request("POST", path, query, data, **headers)
        if response.status != 101:
            with response:
                raise EngineGone(f"the engine answered {response.status} where a stream was asked for")
        return response.headers, Stream(response.socket, response.incoming.rest())

    def progress(
        self, method: str, path: str, query: Query | None = None, body: Body | None = None, **headers: str
    ) -> Iterator[Progress]:
        """Send a request for a long operation; yield its lines, the last one with `result`. Raises its error."""
        with self.request(method, path, query, body, **headers) as response:
            for line in response.lines():
                step = decode(line, Progress)
                if step.error is not None:
                    raise error_of(step.error)
                yield step
                if step.result is not None:
                    return
        raise EngineGone("the engine went away before the operation was finished")

    def _send(self, method: str, path: str, query: Query | None, body: msgspec.Struct | None) -> Response:
        if body is None:
            return self.request(method, path, query)
        return self.request(method, path, query, msgspec.json.encode(body), Content_Type="application/json")

    def _connect(self) -> socket:
        try:
            return connect(self.socket_path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if self._start is None:
                raise unreachable(self.socket_path, error) from error
        except OSError as error:
            raise unreachable(self.socket_path, error) from error
        self._start(self.socket_path)
        return connect(self.socket_path)


def unreachable(path: str, error: OSError) -> EngineGone:
    """Say that nobody answers at `path`, and how to change that."""
    hint = f"start one with `trivetd --listen unix://{path}`, or choose another with --host or TRIVET_HOST"
    return EngineGone(f"cannot reach the engine at unix://{path}: {(error.strerror or str(error)).lower()}", hint=hint)


def decode(data: bytes, shape: type[T]) -> T:
    """Read JSON as `shape`. Raises `EngineGone` naming the first field that is not as agreed."""
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.DecodeError as error:
        hint = "are command and engine of the same version? see `trivet version`"
        raise EngineGone(f"the engine's answer cannot be understood: {error}", hint=hint) from error


def _item(line: bytes, shape: type[T]) -> T:
    """Read a line of a stream; one that went wrong after its beginning ends with a `Progress` that has the error."""
    try:
        return decode(line, shape)
    except EngineGone:
        problem = decode(line, Progress).error
        if problem is None:
            raise
        raise error_of(problem) from None


def segment(text: str) -> str:
    """Percent-encode one path segment; image names hold slashes."""
    return "".join(chr(byte) if byte in SAFE else f"%{byte:02X}" for byte in text.encode(errors="surrogateescape"))


def encode_query(query: Query) -> str:
    """Build `?a=1&b=2`; None, False and "" are left out, True is 1, a list repeats its key."""
    pairs = [(key, item) for key, value in query.items() for item in _items(value)]
    return "?" + "&".join(f"{key}={segment(item)}" for key, item in pairs) if pairs else ""


def filters(wanted: Mapping[str, Sequence[str]] | None) -> list[str]:
    """Flatten filters to the wire's repeated `key=value`."""
    return [f"{key}={value}" for key, values in (wanted or {}).items() for value in values]


def _items(value: Value) -> list[str]:
    if value is None or value is False or value == "":
        return []
    if value is True:
        return ["1"]
    if isinstance(value, (str, int, float)):
        return [str(value)]
    return list(value)
