"""A visitor of the guest book: an ordinary HTTP client at the published port."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable

import msgspec

from demo.step import Failure

ENTRIES = ("the view is fine", "warm bread, cold butter", "we shall come again")
CONNECT = 0.25  # seconds; a machine that still boots drops packets instead of refusing
ANSWER = 60.0
PAUSE = 0.02


class Entry(msgspec.Struct, frozen=True):
    """A line of the book."""

    id: int
    text: str
    written: str


class Machine(msgspec.Struct, frozen=True):
    """What the service says about the machine it sees; `memory` is its own processes' PSS in bytes."""

    kernel: str
    hostname: str
    user: int
    users: list[tuple[int, int, int]]
    interfaces: list[str]
    processes: int
    first: str
    memory: int


def wait_for_answer(port: int, patience: float, alive: Callable[[], None]) -> None:
    """Ask until the book answers; `alive` is called every second and raises when there is nobody to wait for."""
    deadline, look = time.monotonic() + patience, time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            ask(port, "GET", "/")
            return
        except OSError:
            time.sleep(PAUSE)
        if time.monotonic() > look:
            alive()
            look = time.monotonic() + 1
    raise Failure(f"the guest book did not answer on port {port} within {patience:.0f} s")


def sign(port: int) -> list[Entry]:
    """Write three entries, read the book, and make sure that they are its last ones. Raises `Failure`."""
    numbers = [msgspec.json.decode(ask(port, "POST", "/", text), type=dict[str, int])["id"] for text in ENTRIES]
    book = msgspec.json.decode(ask(port, "GET", "/"), type=list[Entry])
    if [(entry.id, entry.text) for entry in book[-len(ENTRIES) :]] != list(zip(numbers, ENTRIES, strict=True)):
        raise Failure(f"the guest book on port {port} lost entries: it has {[entry.text for entry in book]}")
    return book


def look_around(port: int) -> Machine:
    """Ask the service what it sees."""
    return msgspec.json.decode(ask(port, "GET", "/machine"), type=Machine)


def ask(port: int, method: str, path: str, body: str = "") -> bytes:
    """Make one request. Raises `OSError` when nobody answers, `Failure` for any status but success."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CONNECT)
    try:
        connection.connect()
        connection.sock.settimeout(ANSWER)
        connection.request(method, path, body.encode() or None)
        response = connection.getresponse()
        answer = response.read()
    except http.client.HTTPException as error:  # it hung up before the end of its answer
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()
    if response.status not in (200, 201):
        raise Failure(f"{method} {path} on port {port} was answered with {response.status}: {answer.decode()[:200]}")
    return answer
