"""Copying files into and out of instances, running or not.

The work is done inside, by the launcher's own functions, after everything of the instance's root was
set up: nothing of the image is executed, and no path is resolved outside of the root (CVE-2018-15664,
CVE-2019-14271). An instance that doesn't run is set up for the moment with that function as its program.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from trivet.base.error import InvalidArgument, NotFound
from trivet.client.schema import PathStat
from trivet.engine.instance.context import Context
from trivet.engine.instance.ending import end_lock
from trivet.engine.instance.line import Line
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.engine.instance.stream import Stream
from trivet.engine.instance.watch import parse_exit
from trivet.isolation.plan import Limits, Log, Program
from trivet.launch.frame import MAXIMUM, Type

NOT_FOUND = 44  # the builtins' exit status for a path that isn't there
STAT_LIMIT = 64 << 10


class PathMissing(NotFound):
    """A path that isn't in the instance."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(f"no such file in instance {name}: {path}")
        self.name, self.path = name, path


class CopyFailed(InvalidArgument):
    """The builtin refused, in its own words."""

    def __init__(self, name: str, path: str, cause: str) -> None:
        super().__init__(f"cannot copy {path} of instance {name}: {cause}")


async def read(context: Context, key: str, path: str) -> AsyncIterator[bytes]:
    """Yield a tar of `path`; its entries begin with the last component of the path. Raises `PathMissing`."""
    async with _builtin(context, key, "archive-read", path, stdin=False) as (record, stream):
        async for chunk in _output(stream, record.name, path):
            yield chunk


async def write(context: Context, key: str, path: str, chunks: AsyncIterator[bytes]) -> None:
    """Unpack a tar into directory `path`. Raises `PathMissing`, `CopyFailed`."""
    async with _builtin(context, key, "archive-write", path, stdin=True) as (record, stream):
        feed = asyncio.create_task(_feed(stream, chunks))
        try:
            async for _ in _output(stream, record.name, path):
                pass
        finally:
            feed.cancel()


async def stat(context: Context, key: str, path: str) -> PathStat:
    """Look at `path` without following a link in its last component. Raises `PathMissing`."""
    async with _builtin(context, key, "stat", path, stdin=False) as (record, stream):
        text = b""
        async for chunk in _output(stream, record.name, path):
            text += chunk
            if len(text) > STAT_LIMIT:
                raise CopyFailed(record.name, path, "its name is too long")
        return msgspec.json.decode(text, type=PathStat)


async def _feed(stream: Stream, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        for start in range(0, len(chunk), MAXIMUM):
            await stream.send(Type.STDIN, chunk[start : start + MAXIMUM])
    await stream.send(Type.STDIN)


async def _output(stream: Stream, name: str, path: str) -> AsyncIterator[bytes]:
    """Yield what the builtin writes; at its end raise what it complained about."""
    complaint = b""
    while frame := await stream.receive():
        match frame.type:
            case Type.STDOUT:
                yield frame.payload
            case Type.STDERR:
                complaint = (complaint + frame.payload)[-4096:]
            case Type.EXIT:
                code = parse_exit(frame.payload).code
                if code == NOT_FOUND:
                    raise PathMissing(name, path)
                if code:
                    raise CopyFailed(name, path, complaint.decode(errors="replace").strip() or f"exit status {code}")
                return
            case Type.FAILED:
                raise CopyFailed(name, path, frame.payload[8:].decode(errors="replace"))
    raise CopyFailed(name, path, "the instance went away")


@asynccontextmanager
async def _builtin(
    context: Context, key: str, name: str, path: str, *, stdin: bool
) -> AsyncIterator[tuple[InstanceRecord, Stream]]:
    if not path:
        raise InvalidArgument("no path inside the instance was given")
    program = Program(argv=(path,), builtin=name, stdin=stdin)
    async with AsyncExitStack() as stack:
        record = context.table.find(key)
        if record.word in (Word.RUNNING, Word.PAUSED):
            channel = await asyncio.to_thread(context.driver(record).exec, record.plan, program)
        else:
            await stack.enter_async_context(context.locks.hold(key, "copying"))
            await stack.enter_async_context(context.locks.hold(end_lock(key), "copying"))
            record = context.table.find(key)
            driver = context.driver(record)
            plan = msgspec.structs.replace(
                record.plan,
                program=program,
                attachments=(msgspec.structs.replace(record.plan.attachments[0], kind="none"),),
                owner=None,  # nothing of the image runs, and on the disk files have their ids anyway
                log=Log(path=""),
                limits=Limits(),
                files=(),
            )
            stack.push_async_callback(asyncio.to_thread, driver.release, plan)
            await asyncio.to_thread(driver.prepare, plan)
            channel = await asyncio.to_thread(driver.start, plan)
        stream = Line(channel)
        stack.callback(stream.close)
        await stream.attach(stdin=stdin, stdout=True, stderr=True)
        await stream.send(Type.GO)
        yield record, stream
