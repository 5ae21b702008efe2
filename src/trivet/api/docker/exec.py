"""Exec: agree upon a further program, start it, ask how it ended."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker.error import text
from trivet.api.docker.raw import carry, frame, parse_keys
from trivet.api.docker.route import Route, answer, body, name, nothing, whole
from trivet.api.docker.server import MULTIPLEXED, RAW, hijack
from trivet.api.stream import Hijacked
from trivet.base.error import InvalidArgument, TrivetError
from trivet.client.schema import ExecRequest
from trivet.engine.engine import Engine
from trivet.launch.frame import Type


class Creation(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of exec's creation."""

    cmd: list[str] | None = None
    env: list[str] = []
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    attach_stdin: bool = False
    privileged: bool = False
    detach_keys: str = ""


class Start(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of exec's start."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] = []


async def create(engine: Engine, request: web.Request) -> web.StreamResponse:
    wish = await body(request, Creation)
    if not wish.cmd:
        raise InvalidArgument("No exec command specified")
    parse_keys(wish.detach_keys)
    wanted = ExecRequest(
        command=wish.cmd,
        env=wish.env or [],
        cwd=wish.working_dir,
        user=wish.user,
        terminal=wish.tty,
        stdin=wish.attach_stdin,
        privileged=wish.privileged,
        detach_keys=wish.detach_keys,
    )
    return answer({"Id": engine.instances.sessions.create(name(request), wanted).id}, 201)


async def start(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Start the program after the head was sent: docker-py loses what comes together with it.

    A program that cannot be started is told of in the stream, as Docker does, and by its exit code. Whether output has
    headers is what the start says of a terminal, whatever the program has: docker-py doesn't say it again.
    """
    wish = await body(request, Start)
    session = engine.instances.sessions.find(name(request))
    rows, columns = wish.console_size if len(wish.console_size) == 2 else (0, 0)
    session.check_new()
    if wish.detach:
        await session.start(detach=True, rows=rows, columns=columns)
        return nothing(200)
    terminal, keys = session.request.terminal, parse_keys(session.request.detach_keys)
    client = hijack(request, RAW if wish.tty else MULTIPLEXED)
    try:
        await session.start(rows=rows, columns=columns)
        await carry(client, session, terminal=terminal, bare=wish.tty, stdin=session.request.stdin, keys=keys)
    except TrivetError as error:
        client[1].write(frame(Type.STDERR, f"{text(error)}\r\n".encode(), terminal=wish.tty))
    finally:
        client[1].finish()
    return Hijacked()


async def inspect(engine: Engine, request: web.Request) -> web.StreamResponse:
    session = engine.instances.sessions.find(name(request))
    wish = session.request
    shown: dict[str, Any] = {
        "ID": session.id,
        "Running": session.running,
        "ExitCode": session.code,
        "ProcessConfig": {
            "tty": wish.terminal,
            "entrypoint": wish.command[0],
            "arguments": wish.command[1:],
            "privileged": wish.privileged,
            "user": wish.user,
        },
        "OpenStdin": wish.stdin,
        "OpenStderr": True,
        "OpenStdout": True,
        "CanRemove": session.code is not None,
        "ContainerID": session.instance,
        "DetachKeys": wish.detach_keys,
        "Pid": session.pid,
    }
    return answer(shown)


async def resize(engine: Engine, request: web.Request) -> web.StreamResponse:
    session = engine.instances.sessions.find(name(request))
    await session.resize(whole(request, "h", 0), whole(request, "w", 0))
    return nothing(200)


ROUTES = (
    Route("POST", "/containers/{name}/exec", create, body=Creation),
    Route("POST", "/exec/{name}/start", start, body=Start),
    Route("GET", "/exec/{name}/json", inspect),
    Route("POST", "/exec/{name}/resize", resize, ("h", "w")),
)
