"""The client's HTTP over a real socket, with a peer that says exactly what the test tells it to."""

from __future__ import annotations

import io
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from trivet.base.error import Denied, Internal, NotFound, TrivetError
from trivet.client.client import Client
from trivet.client.connection import Writer
from trivet.client.problem import EngineGone, ProgramFailed, ProgramNotFound
from trivet.client.schema import ExecRequest, Problem
from trivet.client.schema_build import BuildRequest
from trivet.client.schema_volume import VolumeRequest
from trivet.client.stream import Exit, Output
from trivet.client.transport import encode_query, segment
from trivet.launch.frame import Type, pack

OK = b"HTTP/1.1 200 OK\r\n"


class Peer:
    """Listens on a unix socket; answers each connection with the next script, keeps what it was sent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self.client = Client(f"unix://{path}")

    def answer(self, *pieces: bytes, read_body: bool = True) -> None:
        """Answer the next connection with `pieces`, each in a packet of its own, then hang up."""
        threading.Thread(target=self._serve, args=(pieces, read_body), daemon=True).start()

    def _serve(self, pieces: tuple[bytes, ...], read_body: bool) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.requests.append(_read_request(connection, read_body))
            for piece in pieces:
                connection.sendall(piece)

    def serve(self, handle: Callable[[socket.socket], None]) -> None:
        """Let `handle` speak with the next connection."""

        def run() -> None:
            connection, _ = self._listener.accept()
            with connection:
                handle(connection)

        threading.Thread(target=run, daemon=True).start()

    def close(self) -> None:
        self._listener.close()


def _read_request(connection: socket.socket, read_body: bool = True) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" in head:
        while read_body and not body.endswith(b"0\r\n\r\n"):
            more = connection.recv(65536)
            if not more:
                break
            body += more
    else:
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def peer() -> Iterator[Peer]:
    with tempfile.TemporaryDirectory() as directory:
        peer = Peer(Path(directory) / "s")
        yield peer
        peer.close()


def test_a_request_on_the_wire(peer: Peer) -> None:
    """Method, encoded path, query, length and JSON body are as HTTP wants them."""
    answer = b'{"name":"a b","driver":"local","mountpoint":"/m","created":"2026"}'
    peer.answer(OK + b"Content-Length: %d\r\n\r\n" % len(answer) + answer)
    volume = peer.client.volumes.create(VolumeRequest(name="a b"))
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/volumes HTTP/1.1\r\nHost: trivet\r\n")
    assert msgspec.json.decode(body, type=VolumeRequest) == VolumeRequest(name="a b")
    assert volume.mountpoint == "/m"


def test_names_are_encoded() -> None:
    """Slashes and everything else that isn't plain are percent-encoded; empty query values are left out."""
    assert segment("localhost:5000/a b:1") == "localhost%3A5000%2Fa%20b%3A1"
    assert segment("ü/..") == "%C3%BC%2F.."
    assert (
        encode_query({"a": 1, "b": True, "c": False, "d": None, "e": "", "f": ["x", "y&z"], "g": 0})
        == "?a=1&b=1&f=x&f=y%26z&g=0"
    )


@pytest.mark.parametrize("pieces", [[b"0"], [b"1\r\n[\r\n", b"1\r\n]\r\n0"], [b"2;x=y\r\n[", b"]\r", b"\n0\r\nT: x"]])
def test_chunked_answers(peer: Peer, pieces: list[bytes]) -> None:
    """Chunks may be cut anywhere, have extensions and trailers."""
    peer.answer(OK + b"Transfer-Encoding: chunked\r\n\r\n", *pieces, b"\r\n\r\n")
    if pieces == [b"0"]:
        with pytest.raises(EngineGone, match="cannot be understood"):
            peer.client.volumes.list()
    else:
        assert peer.client.volumes.list() == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        OK + b"Content-Length: 100\r\n\r\n[]",
        OK + b"Content-Length: ten\r\n\r\n[]",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n[]",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"a: b\r\n" * 1000 + b"\r\n",
        OK + b"Content-Length: 4\r\n\r\n{}xx",
        OK + b"x" * 100_000,
    ],
)
def test_broken_answers(peer: Peer, answer: bytes) -> None:
    """An answer that breaks off or makes no sense is an error of the engine, whatever it is."""
    peer.answer(answer)
    with pytest.raises(EngineGone):
        peer.client.volumes.list()


def test_problems_become_errors(peer: Peer) -> None:
    """A problem document becomes the exception of its kind, with sentence and hint."""
    body = msgspec.json.encode(Problem(kind="not-found", message="no such volume: x", hint="look"))
    peer.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    with pytest.raises(NotFound) as caught:
        peer.client.volumes.get("x")
    assert (caught.value.message, caught.value.hint) == ("no such volume: x", "look")
    peer.answer(b"HTTP/1.1 500 Oops\r\n\r\n<html>")
    with pytest.raises(Internal, match="the engine answered 500: <html>"):
        peer.client.volumes.get("x")
    peer.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 999\r\n\r\n")
    with pytest.raises(NotFound, match="no such file in instance web: /x"):
        peer.client.instances.stat_path("web", "/x")


def test_progress_streams(peer: Peer) -> None:
    """Lines of progress arrive one by one, the last with the result; an error in it is raised."""
    peer.answer(OK + b"\r\n", b'{"id":"a","status":"x"}\n{"re', b'sult":{"id":"1"}}\n')
    assert [step.result for step in peer.client.images.pull("image")] == [None, {"id": "1"}]
    assert peer.requests[0].startswith(b"POST /v1/images/pull?reference=image HTTP/1.1")
    peer.answer(OK + b"\r\n" + b'{"status":"x"}\n{"error":{"kind":"corrupt","message":"bad blob"}}\n')
    with pytest.raises(TrivetError, match="bad blob"):
        list(peer.client.images.pull("image"))
    peer.answer(OK + b'\r\n{"status":"x"}\n')
    with pytest.raises(EngineGone, match="before the operation was finished"):
        list(peer.client.images.pull("image"))


def test_streams_that_fail_later(peer: Peer) -> None:
    """A stream whose last line is a problem raises it."""
    event = b'{"time":"2026","time_ns":1,"kind":"image","action":"pull","id":"1","name":"x"}\n'
    peer.answer(OK + b"\r\n" + event + b'{"error":{"kind":"denied","message":"enough"}}\n')
    events = peer.client.system.events()
    assert next(events).action == "pull"
    with pytest.raises(Denied, match="enough"):
        next(events)


def test_uploads_are_chunked(peer: Peer) -> None:
    """A body is sent as it is produced, and the header of a build is ASCII whatever its values."""

    def produce(writer: Writer) -> None:
        for number in range(100):
            writer.write(b"%02d" % number * 5000)
        writer.write(b"")

    peer.answer(OK + b'\r\n{"result":{"id":"1"}}\n')
    request = BuildRequest(tags=["ü"])
    assert [step.result for step in peer.client.images.build(produce, request)] == [{"id": "1"}]
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    header = next(line for line in head.split(b"\r\n") if line.startswith(b"Trivet-Build: "))
    assert msgspec.json.decode(header.partition(b": ")[2], type=BuildRequest) == request
    assert _unchunk(body) == b"".join(b"%02d" % number * 5000 for number in range(100))


def test_a_refusal_stops_an_upload(peer: Peer) -> None:
    """An engine that refuses without reading the body is heard, and the producer stops."""
    body = msgspec.json.encode(Problem(kind="denied", message="no builds today"))
    stopped = threading.Event()

    def produce(writer: Writer) -> None:
        try:
            while True:
                writer.write(bytes(65536))
        finally:
            stopped.set()

    peer.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body) + body, read_body=False)
    with pytest.raises(Denied, match="no builds today"):
        list(peer.client.images.load(produce))
    assert stopped.wait(5)


def test_a_producer_that_fails(peer: Peer) -> None:
    """An error while a body is produced reaches the caller, and the engine sees a body that isn't complete."""

    def produce(writer: Writer) -> None:
        writer.write(b"half")
        raise PermissionError(13, "Permission denied", "/secret")

    peer.answer()
    with pytest.raises(PermissionError, match="/secret"):
        list(peer.client.images.load(produce))
    assert not peer.requests or not peer.requests[0].endswith(b"0\r\n\r\n")


def test_a_download_as_a_file(peer: Peer) -> None:
    """A body is read in the sizes asked for."""
    peer.answer(OK + b"\r\n", b"abc", b"defgh")
    with peer.client.images.save(["x"]) as response:
        assert [response.read(2), response.read(4), response.read(), response.read(1)] == [b"ab", b"cdef", b"gh", b""]


def test_logs_are_frames(peer: Peer) -> None:
    """A log is a body of frames, cut anywhere."""
    data = pack(Type.STDOUT, b"out") + pack(Type.STDERR, b"err")
    peer.answer(OK + b"Content-Length: %d\r\n\r\n" % len(data), data[:5], data[5:13], data[13:])
    assert list(peer.client.instances.logs("web", tail=5)) == [Output(False, b"out"), Output(True, b"err")]
    assert b"tail=5&stdout=1&stderr=1" in peer.requests[0]


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: trivet-stream\r\nConnection: upgrade\r\n\r\n"
EXIT = pack(Type.EXIT, struct.pack("<IIQI", 137, 9, 5, 1))


def test_an_upgraded_stream(peer: Peer) -> None:
    """Frames right behind the 101 aren't lost; input, its end, sizes and signals go out as frames."""
    received = io.BytesIO()

    def handle(connection: socket.socket) -> None:
        peer.requests.append(_read_request(connection))
        connection.sendall(SWITCH + pack(Type.STARTED, b"\1\0\0\0") + pack(Type.STDOUT, b"early"))
        received.write(_until(connection, pack(Type.SIGNAL, b"\2\0\0\0")))
        connection.sendall(pack(Type.STDERR, b"late") + EXIT)

    peer.serve(handle)
    with peer.client.instances.exec("web", ExecRequest(command=["sh"])) as stream:
        stream.write(b"x" * 70000)
        stream.end()
        stream.resize(24, 80)
        stream.signal(2)
        stream.flush()
        assert list(stream) == [Output(False, b"early"), Output(True, b"late"), Exit(137, 9, 5, True)]
    assert b"Upgrade: trivet-stream\r\n" in peer.requests[0]
    expected = [
        (Type.STDIN, b"x" * 65536),
        (Type.STDIN, b"x" * 4464),
        (Type.STDIN, b""),
        (Type.RESIZE, b"\x18\0\x50\0"),
    ]
    assert received.getvalue().startswith(b"".join(pack(kind, payload) for kind, payload in expected))


@pytest.mark.parametrize(
    ("frames", "kind", "code"),
    [
        (pack(Type.FAILED, struct.pack("<II", 3, 2) + b"no such program"), ProgramNotFound, 127),
        (
            pack(Type.FAILED, struct.pack("<II", 3, 13) + b'{"kind":"denied","message":"x","exit_code":126}'),
            ProgramFailed,
            126,
        ),
        (pack(Type.FAILED, struct.pack("<II", 3, 28) + b'{"kind":"exhausted","message":"x"}'), ProgramFailed, 125),
        (pack(Type.STDOUT, b"x"), EngineGone, 0),
        (b"\x45\0\0\0\xff\xff\xff\xff", EngineGone, 0),
        (pack(Type.EXIT, b"short"), EngineGone, 0),
        (pack(Type.FAILED, b"short"), EngineGone, 0),
    ],
)
def test_streams_that_end_badly(peer: Peer, frames: bytes, kind: type[TrivetError], code: int) -> None:
    """A failed start carries the exit code; a stream that breaks off or makes no sense is an error."""
    peer.answer(SWITCH + frames)
    with peer.client.instances.attach("web", start=True) as stream, pytest.raises(kind) as caught:
        list(stream)
    assert caught.value.exit_code == code


def test_nobody_listens(tmp_path: Path) -> None:
    """A named engine that isn't there is an error with a hint, and isn't started."""
    for name in ("absent", "file"):
        path = tmp_path / name
        if name == "file":
            path.write_text("")
        with pytest.raises(EngineGone, match="cannot reach the engine") as caught:
            Client(f"unix://{path}").system.ping()
        assert "trivetd --listen" in (caught.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += connection.recv(65536)
    return data


def _unchunk(body: bytes) -> bytes:
    result = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        result += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return result
