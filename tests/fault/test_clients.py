"""Clients that come in crowds, don't read, or don't finish their sentence; and an engine beside another."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.fault.conftest import IMAGE
from tests.fleet import eventually

MEBIBYTE = 1 << 20
CROWD = 1000


def memory(engine: Daemon) -> int:
    """What the engine has in memory, in bytes (PSS)."""
    text = Path(f"/proc/{engine.pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def peak(engine: Daemon) -> int:
    """The most the engine ever had in memory, in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{engine.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def descriptors(engine: Daemon) -> int:
    """How many files the engine has open, but for namespaces that it keeps for starts to come."""
    device = Path("/proc/self/ns/user").stat().st_dev
    found = 0
    for link in Path(f"/proc/{engine.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found += link.stat().st_dev != device
    return found


def request(path: str) -> bytes:
    """A request as bytes; the connection ends after the answer."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def connect(engine: Daemon, name: str = "docker.sock") -> socket.socket:
    """A connection to one of the engine's doors."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(60)
    made.connect(str(engine.run / name))
    return made


def works(engine: Daemon) -> bool:
    """Whether the engine answers another client and runs a program."""
    return engine.ok("run", "--rm", IMAGE, "echo", "fine") == "fine"


def test_a_thousand_clients_at_once(victim: Daemon) -> None:
    """A thousand clients that ask at the same time are all answered, in bounded memory, and nothing of them is left."""
    for number in range(20):
        victim.ok("create", "--name", f"one{number}", IMAGE)
    files, before = descriptors(victim), peak(victim)

    async def ask(path: str, name: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(victim.run / name))
        writer.write(request(path))
        answer = await reader.read()
        writer.close()
        return answer

    async def everybody() -> list[bytes]:
        doors = (("/v1.43/containers/json?all=1", "docker.sock"), ("/v1/instances?all=1", "trivet.sock"))
        return await asyncio.gather(*(ask(*doors[number % 2]) for number in range(CROWD)))

    answers = asyncio.run(everybody())
    assert [answer[:16] for answer in answers if not answer.startswith(b"HTTP/1.1 200 OK")] == []
    assert all(len(json.loads(answer.partition(b"\r\n\r\n")[2])) == 20 for answer in answers[::2])
    assert peak(victim) - before < 96 * MEBIBYTE
    eventually(lambda: descriptors(victim) <= files + 4)
    assert works(victim)


def test_attached_clients_that_do_not_read(victim: Daemon) -> None:
    """Who is attached and doesn't read holds the program up, as a full pipe does, in bounded memory, until it goes."""
    victim.ok("run", "-d", "--name", "loud", IMAGE, "sh", "-c", "sleep 2; head -c 60000000 /dev/zero; echo; echo end")
    before = memory(victim)
    with ExitStack() as stack:
        for _ in range(20):
            slow = stack.enter_context(connect(victim))
            slow.sendall(b"POST /v1.43/containers/loud/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert works(victim)
        assert memory(victim) - before < 96 * MEBIBYTE
    assert victim.ok("wait", "loud", timeout=120) == "0"
    assert victim.ok("logs", "--tail", "1", "loud") == "end"
    assert memory(victim) - before < 96 * MEBIBYTE


@pytest.mark.parametrize("kind", ["logs", "events"])
def test_clients_that_do_not_read(victim: Daemon, kind: str) -> None:
    """Who follows and never reads costs little memory, and neither holds up the program nor anybody else."""
    script = "sleep 3; head -c 60000000 /dev/zero | tr '\\0' x | fold -w 99; echo; echo the end"
    victim.ok("run", "-d", "--name", "loud", IMAGE, "sh", "-c", script)
    before = memory(victim)
    paths = {
        "logs": "GET /v1.43/containers/loud/logs?follow=1&stdout=1",
        "events": "GET /v1.43/events",
    }
    with ExitStack() as stack:
        for _ in range(20):
            slow = stack.enter_context(connect(victim))
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(f"{paths[kind]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if kind == "events":
            for number in range(30):
                victim.ok("volume", "create", "--label", f"a={'x' * 60000}", f"v{number}")
        assert victim.ok("wait", "loud", timeout=240) == "0"
        assert victim.ok("logs", "--tail", "1", "loud") == "the end"
        assert memory(victim) - before < 96 * MEBIBYTE
        assert works(victim)
    files = descriptors(victim)
    eventually(lambda: descriptors(victim) <= files)
    assert memory(victim) - before < 96 * MEBIBYTE


def test_clients_that_do_not_finish(victim: Daemon) -> None:
    """Half a line, half a header, a body that never comes: others are answered, and nothing stays when they go."""
    files, before = descriptors(victim), memory(victim)
    beginnings = (
        b"GET /v1.43/con",
        b"GET /_ping HTTP/1.1\r\nHost: x\r\nX-Half: ",
        b"POST /v1.43/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000000\r\n\r\n{",
        b"POST /v1.43/images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    )
    with ExitStack() as stack:
        for number in range(400):
            half = stack.enter_context(connect(victim))
            half.sendall(beginnings[number % len(beginnings)])
        for _ in range(20):
            with connect(victim) as whole:
                whole.sendall(request("/_ping"))
                assert whole.recv(15) == b"HTTP/1.1 200 OK"
        assert works(victim)
        assert memory(victim) - before < 64 * MEBIBYTE
    eventually(lambda: descriptors(victim) <= files + 4)
    assert list((victim.root / "tmp").iterdir()) == []


def test_headers_without_end(victim: Daemon) -> None:
    """A header that goes on and on is cut off with an error, not collected."""
    before = memory(victim)
    with connect(victim) as endless:
        endless.sendall(b"GET /_ping HTTP/1.1\r\nX: ")
        answer = b""
        try:
            for _ in range(512):
                endless.sendall(b"x" * 65536)
            endless.settimeout(20)
            answer = endless.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert memory(victim) - before < 32 * MEBIBYTE
    assert works(victim)


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Daemon]:
    """A second engine, with a root of its own."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        engine = Daemon(tmp_path / "neighbour", run)
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield engine


def test_two_engines(victim: Daemon, neighbour: Daemon) -> None:
    """Engines side by side have names, networks and ports of their own, and one's end leaves the other's alone."""
    for engine in (victim, neighbour):
        engine.ok("network", "create", "same")
        engine.ok("run", "-d", "--name", "same", "--network", "same", "-p", "80", IMAGE, "httpd", "-f", "-h", "/etc")
    first, second = (json.loads(each.ok("inspect", "same"))[0] for each in (victim, neighbour))
    subnets = {each["networks"][0]["addresses"][0].rpartition(".")[0] for each in (first, second)}
    assert len(subnets) == 2
    taken = f"{first['ports'][0]['host_port']}:80"
    said = neighbour.trivet("run", "--rm", "-p", taken, IMAGE, "true").stderr.decode()
    assert "already used by" in said
    neighbour.clean()
    assert victim.ok("exec", "same", "wget", "-qO-", "http://same/hostname") == victim.ok("exec", "same", "hostname")
    neighbour.start()
