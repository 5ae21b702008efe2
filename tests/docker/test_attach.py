"""Attaching over a websocket, as dashboards and browsers do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import Link, ask, value

pytestmark = pytest.mark.needs("root", "docker")
ALL = {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"}
Talk = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[bytes]]


def create(tool: Tool, name: str, command: list[str], **body: Any) -> str:
    """Create a container without network; its id."""
    wish = {"Image": IMAGE, "Cmd": command, "HostConfig": {"NetworkMode": "none"}, **body}
    key: str = value(tool, "POST", "/containers/create", wish, 201, name=name)["Id"]
    return key


def talk(tool: Tool, key: str, words: Talk, **query: str) -> bytes:
    """Attach over a websocket and have a conversation."""

    async def run() -> bytes:
        connector = aiohttp.UnixConnector(tool.socket)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://docker/containers/{key}/attach/ws"
            async with session.ws_connect(url, params=query, timeout=aiohttp.ClientWSTimeout(ws_close=5)) as socket:
                return await asyncio.wait_for(words(socket), 20)

    return asyncio.run(run())


async def to_the_end(socket: aiohttp.ClientWebSocketResponse) -> bytes:
    """Read until the engine closes."""
    seen = b""
    async for message in socket:
        assert message.type is aiohttp.WSMsgType.BINARY
        seen += message.data
    return seen


async def until(socket: aiohttp.ClientWebSocketResponse, end: bytes) -> bytes:
    """Read until something was said."""
    seen = b""
    while not seen.endswith(end):
        seen += (await socket.receive(10)).data
    return seen


def test_websocket(docker: Tool) -> None:
    """Input arrives, output comes bare and to its end; text and binary messages are the same to a program."""
    line = 'while read word; do [ "$word" = end ] && exit 3; echo "got $word"; done'
    key = create(docker, "ws", ["sh", "-c", line], OpenStdin=True)
    ask(docker, "POST", f"/containers/{key}/start", None, 204)

    async def words(socket: aiohttp.ClientWebSocketResponse) -> bytes:
        await socket.send_str("text\n")
        seen = await until(socket, b"got text\n")
        await socket.send_bytes(b"binary\nend\n")
        return seen + await to_the_end(socket)

    assert talk(docker, key, words, **ALL) == b"got text\ngot binary\n"
    assert value(docker, "POST", f"/containers/{key}/wait")["StatusCode"] == 3
    assert b"got text" in talk(docker, key, to_the_end, logs="1", stdout="1", stderr="1")
    ask(docker, "DELETE", f"/containers/{key}", None, 204, force="1")


def test_websocket_before_the_start(docker: Tool) -> None:
    """Who attaches before the start misses nothing; a terminal has a size and lets go at the detach keys."""
    key = create(
        docker, "ws-tty", ["sh", "-c", "echo here; while read word; do stty size; done"], OpenStdin=True, Tty=True
    )

    async def words(socket: aiohttp.ClientWebSocketResponse) -> bytes:
        await asyncio.to_thread(ask, docker, "POST", f"/containers/{key}/start", None, 204)
        await asyncio.to_thread(ask, docker, "POST", f"/containers/{key}/resize", None, 200, h="31", w="91")
        seen = await until(socket, b"here\r\n")
        await socket.send_bytes(b"word\n")
        seen += await until(socket, b"31 91\r\n")
        await socket.send_bytes(b"\x01d")
        return seen + await to_the_end(socket)

    assert b"31 91" in talk(docker, key, words, **ALL, detachKeys="ctrl-a,d")
    assert value(docker, "GET", f"/containers/{key}/json")["State"]["Running"] is True
    ask(docker, "DELETE", f"/containers/{key}", None, 204, force="1")


def test_websocket_streams_are_chosen(trivet: Tool) -> None:
    """Since API 1.42 a client gets the streams it asked for; the program lives on when it leaves."""
    key = create(trivet, "ws-err", ["sh", "-c", "echo out; echo err >&2; exec sleep 60"])

    async def words(socket: aiohttp.ClientWebSocketResponse) -> bytes:
        await asyncio.to_thread(ask, trivet, "POST", f"/containers/{key}/start", None, 204)
        return await until(socket, b"err\n")

    assert talk(trivet, key, words, stream="1", stderr="1") == b"err\n"
    assert value(trivet, "GET", f"/containers/{key}/json")["State"]["Running"] is True
    ask(trivet, "DELETE", f"/containers/{key}", None, 204, force="1")


def test_websocket_refusals(docker: Tool) -> None:
    """A container that isn't there, and a wish for nothing, are refused before anything is upgraded."""
    assert value(docker, "GET", "/containers/nosuch/attach/ws", None, 404, stream="1")["message"].startswith("No such")
    for keys in ("ctrl-", "nonsense"):
        ask(
            docker,
            "GET",
            "/containers/nosuch/attach/ws",
            None,
            404 if docker.name == "trivet" else 400,
            detachKeys=keys,
        )


def test_an_exec_is_left(docker: Tool) -> None:
    """The keys an exec was created with let go of its terminal; it goes on here (dockerd 20.10 hangs it up)."""
    docker.ok("run", "-d", "--name", "leave", "--network", "none", IMAGE, "sleep", "600")
    wish = {"Cmd": ["sh", "-c", "echo here; exec sleep 500"], "Tty": True, "AttachStdin": True, "AttachStdout": True}
    made = value(docker, "POST", "/containers/leave/exec", {**wish, "DetachKeys": "ctrl-x,x"}, 201)["Id"]
    link = Link(docker.socket)
    head = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
    link.request("POST", f"/exec/{made}/start", b'{"Tty":true}', head)
    assert link.sock is not None
    seen = b""
    while b"here" not in seen:
        seen += link.sock.recv(4096)
    link.sock.sendall(b"\x18")
    link.sock.sendall(b"x")
    while link.sock.recv(4096):
        pass
    link.close()
    if docker.name == "trivet":
        assert value(docker, "GET", f"/exec/{made}/json")["Running"] is True
        assert "sleep 500" in docker.ok("top", "leave")
    docker.ok("rm", "-f", "leave")
