"""`build --on-error shell`: a shell where a step has failed, with its files, mounts, network and variables.

The state before the step is kept, too, by the cache: the next build begins at the step that failed.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from trivet.base.thread import in_thread
from trivet.build.caller import Ask, NoAnswer
from trivet.build.session import Session
from trivet.client.schema import Progress
from trivet.client.schema_network import EndpointRequest
from trivet.engine.instance.line import Line
from trivet.engine.instance.stream import ClientStream, Failed, Stream
from trivet.isolation.plan import Plan
from trivet.launch.frame import Type

SHELL = "[shell]"  # the id of the progress line that tells the caller to be ready
FROM_CALLER = frozenset({Type.STDIN, Type.RESIZE, Type.SIGNAL})


async def open_shell(session: Session, plan: Plan, shell: tuple[str, ...], title: str) -> None:
    """Run a shell as the step of `plan` ran, for the caller, until it ends; a caller who can't is left alone."""
    session.report(Progress(id=SHELL, status=f"a shell in the step that failed: {title}"))
    try:
        line, reply = await session.caller.ask(Ask.SHELL, title)
    except NoAnswer:
        return
    try:
        program = msgspec.structs.replace(
            plan.program,
            argv=shell[:1],
            terminal=reply.rows > 0,
            rows=reply.rows,
            columns=reply.columns,
            stdin=True,
        )
        await _serve(session, msgspec.structs.replace(plan, program=program), ClientStream(line.reader, line.writer))
    finally:
        line.close()


async def _serve(session: Session, plan: Plan, caller: Stream) -> None:
    driver, networks = session.tools.driver, session.tools.networks
    await in_thread(driver.release, plan)  # what the command has left running
    wishes = [EndpointRequest(network=each.network) for each in plan.attachments]  # an interface is set up but once
    plan = msgspec.structs.replace(
        plan, attachments=await in_thread(networks.attach, plan.id, plan.id, "netns", wishes)
    )
    await in_thread(driver.prepare, plan)
    stream = Line(await in_thread(driver.start, plan))
    try:
        await stream.attach(stdin=True, stdout=True, stderr=True)
        with contextlib.suppress(Failed):
            await stream.go()
            await _carry(caller, stream)
    finally:
        stream.close()


async def _carry(caller: Stream, program: Stream) -> None:
    """Carry frames both ways until the shell ends, or the caller goes."""
    upward = asyncio.create_task(_input(caller, program))
    try:
        while frame := await program.receive():
            await caller.send(frame.type, frame.payload)
            if frame.type == Type.EXIT:
                return
    except ConnectionError:
        pass
    finally:
        upward.cancel()
        await asyncio.gather(upward, return_exceptions=True)


async def _input(caller: Stream, program: Stream) -> None:
    while frame := await caller.receive():
        if frame.type in FROM_CALLER:
            await program.send(frame.type, frame.payload)
    program.close()
