"""Running further programs in a running instance."""

from __future__ import annotations

import msgspec

from trivet.base.error import InvalidArgument
from trivet.base.thread import in_thread
from trivet.client.schema import ExecRequest
from trivet.engine.instance.context import Context
from trivet.engine.instance.line import Line
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import check
from trivet.engine.instance.stream import Attach, Failed, Stream, refusal
from trivet.isolation.plan import Program


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
    stream = Line(await in_thread(driver.exec, plan, program))
    try:
        await stream.attach(stdin=attach.stdin, stdout=attach.stdout, stderr=attach.stderr)
        await stream.go()
    except Failed as failure:
        stream.close()
        raise refusal(program, failure, record.name) from None
    return stream


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
