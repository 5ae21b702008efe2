"""Running further programs in a running instance."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache
from typing import cast

import msgspec

from trivet.base.error import InvalidArgument
from trivet.base.thread import in_thread
from trivet.client.schema import ExecRequest
from trivet.engine.instance.context import Context
from trivet.engine.instance.line import Line
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import check
from trivet.engine.instance.stream import Attach, Failed, Stream, refusal
from trivet.isolation.driver import Driver, Entering
from trivet.isolation.failure import explained
from trivet.isolation.plan import Plan, Program
from trivet.launch.channel import Frame, dial
from trivet.launch.enter import PATIENCE, SOCKET, failure, refused
from trivet.launch.failure import LaunchTimeout
from trivet.launch.frame import Type, pack


async def execute(context: Context, key: str, request: ExecRequest, session: str = "") -> Stream:
    """Run a further program in a running instance; the stream is attached from its first byte on.

    `session` is what events call it. Environment, directory and user default to those of the instance's own program.
    Raises the level's error when the program cannot be executed.
    """
    record = context.table.find(key)
    check("exec in", record.name, record.word)
    if not request.command or not request.command[0]:
        raise InvalidArgument(f"cannot exec in instance {record.name}: no command was given")
    streams = Attach(stdin=request.stdin, stdout=not request.detach, stderr=not request.detach)
    stream = await run(context, record, exec_program(record.plan.program, request), streams)
    context.emit("exec", record, session=session, command=" ".join(request.command)[:200])
    return stream


async def run(context: Context, record: InstanceRecord, program: Program, attach: Attach) -> Stream:
    """Set `program` up in the instance, attach, and let it go."""
    driver, plan = context.driver(record), record.plan
    if (entering := _entering(driver)) and (entered := await _enter(entering, plan, program, attach)):
        return entered
    stream = Line(await in_thread(driver.exec, plan, program))
    try:
        await stream.attach(stdin=attach.stdin, stdout=attach.stdout, stderr=attach.stderr)
        await stream.go()
    except Failed as failure:
        stream.close()
        raise refusal(program, failure, record.name) from None
    return stream


def _entering(driver: Driver) -> Entering | None:
    """Tell whether a level's monitors add programs; to ask the protocol takes long."""
    return cast(Entering, driver) if _enters(type(driver)) else None


@cache
def _enters(kind: type[Driver]) -> bool:
    return issubclass(kind, Entering)


async def _enter(driver: Entering, plan: Plan, program: Program, attach: Attach) -> Stream | None:
    """Have the instance's monitor do all of it, which is said at once; None if it won't, and nothing has happened."""
    with explained(f"instance {plan.name}"):
        entry = driver.entry(plan, program)
        frames = pack(Type.ENTER, entry.request()) + pack(Type.ATTACH, attach.flags()) + pack(Type.GO)
        try:
            line = Line(dial(f"{plan.directory}/{SOCKET}", wait=False))
        except OSError:  # nobody is there, or too many wait
            return None
        try:
            hello, answer = await _ask(line, frames)
            if refused(hello, answer):
                line.close()
                return None
            if answer is None or answer.type is not Type.STARTED:
                raise failure(entry, answer)
        except BaseException:
            line.close()
            raise
    line.pid = int.from_bytes(answer.payload, "little")
    return line


async def _ask(line: Line, frames: bytes) -> tuple[bytes, Frame | None]:
    """Say all of it, and hear HELLO and what comes of it."""
    loop = asyncio.get_running_loop()
    patience = loop.call_later(PATIENCE, line.close)
    try:
        with suppress(ConnectionError):  # what it said before it hung up counts
            await line.transmit(frames)
        hello = await line.receive()
        answer = await line.receive() if hello else None
    finally:
        patience.cancel()
    if answer is None and loop.time() >= patience.when():  # it may heed what was said some time: nobody else must
        raise LaunchTimeout("the instance's monitor did not report that the program runs in time")
    return hello.payload if hello else b"", answer


def exec_program(base: Program, request: ExecRequest) -> Program:
    """Fold an exec request into the instance's program."""
    merged = dict(item.split("=", 1) for item in base.env)
    if request.terminal:
        merged.setdefault("TERM", "xterm")
    for item in request.env:
        key, sign, value = item.partition("=")
        if sign:
            merged[key] = value
        else:
            merged.pop(key, None)
    return msgspec.structs.replace(
        base,
        argv=tuple(request.command),
        env=tuple(f"{key}={value}" for key, value in merged.items()),
        cwd=request.cwd or base.cwd,
        user=request.user or base.user,
        terminal=request.terminal,
        rows=request.rows,
        columns=request.columns,
        stdin=request.stdin,
        privileged=request.privileged,
    )
