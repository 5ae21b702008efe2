"""What becomes of a build's result: an image here or in a registry, files or an archive for the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, BinaryIO

import msgspec

from trivet.base.thread import in_thread
from trivet.build.caller import Ask, NoAnswer, Reply
from trivet.build.error import BuildError
from trivet.build.provenance import attest
from trivet.build.session import Session, Step
from trivet.client.schema import Progress
from trivet.client.schema_build import Output
from trivet.engine.image.commit import Draft
from trivet.engine.image.model import ImageRecord
from trivet.engine.snapshot.diff import export_all
from trivet.oci import platform as platforms
from trivet.oci import reference as references

PIECE = 1 << 20
Annotate = Callable[[Sequence[Session]], Mapping[str, str]]
KEEPING = ("image", "registry", "oci", "docker")


async def deliver(sessions: Sequence[Session], drafts: Sequence[Draft], annotate: Annotate) -> dict[str, Any]:
    """Hand a build's result over, as its outputs say; return what the caller is told.

    There is a session and a draft for each platform; `annotate` tells what the manifests say beside.
    """
    session = sessions[-1]
    outputs = session.request.outputs or [Output(kind="image")]
    names = _names(session, outputs)
    record = None
    if any(output.kind in KEEPING for output in outputs):
        record = await in_thread(_keep, sessions, drafts, names, annotate)
    for number, output in enumerate(outputs):
        match output.kind:
            case "registry":
                await _push(session, names)
            case "local" | "tar":
                await _files(session, number, drafts)
            case "oci" | "docker":
                assert record is not None
                await _archive(session, number, output, names or [record.id])
    return _result(record, names)


def _keep(sessions: Sequence[Session], drafts: Sequence[Draft], names: list[str], annotate: Annotate) -> ImageRecord:
    record = sessions[-1].tools.images.create_all(drafts, names, annotate(sessions))
    attest(sessions[-1], sessions, record, names)
    return record


def _names(session: Session, outputs: Sequence[Output]) -> list[str]:
    given = [*session.request.tags, *(name for output in outputs for name in output.name.split(",") if name)]
    return list(dict.fromkeys(references.parse(name).tagged().familiar for name in given))


def _result(record: ImageRecord | None, names: list[str]) -> dict[str, Any]:
    if record is None:
        return {"id": "", "names": []}
    own = [name for name in record.names if name.familiar in names]
    return {"id": record.id, "names": names, "digest": own[-1].digest if own else record.manifest}


async def _push(session: Session, names: list[str]) -> None:
    if not names:
        raise BuildError("there is nothing to push: the image has no name", hint="give it one with --tag")
    for name in names:
        await session.tools.images.push(name, session.report)


async def _files(session: Session, number: int, drafts: Sequence[Draft]) -> None:
    """Send an image's files as a tar; of several platforms, each in a directory of its own."""
    step = Step(session=session, id="[output]", line=0, title="exporting files")
    step.tell()
    async with AsyncExitStack() as undo:
        roots = {}
        for draft in drafts:
            place = str(draft.config.platform).replace("/", "_") if len(drafts) > 1 else ""
            roots[place], _ = await step.root(draft, undo)
        with session.scratch_file() as file:
            await in_thread(export_all, roots, file.write)
            await send_file(session, str(number), file)
    step.tell("done")


async def _archive(session: Session, number: int, output: Output, names: list[str]) -> None:
    session.report(Progress(id="[output]", status=f"exporting an archive ({output.kind})"))
    with session.scratch_file() as file:
        await in_thread(session.tools.images.save, names, file, output.kind)
        await send_file(session, str(number), file)
    session.report(Progress(id="[output]", status=f"exporting an archive ({output.kind}) · done"))


async def send_file(session: Session, name: str, file: BinaryIO) -> None:
    """Send a file to the caller, and wait until it says that all is in its place."""
    line, _ = await session.caller.ask(Ask.OUTPUT, name)
    try:
        file.seek(0)
        while piece := await in_thread(file.read, PIECE):
            line.writer.write(piece)
            await line.writer.drain()
        line.writer.write_eof()
        reply = msgspec.json.decode(await line.reader.readline() or b"{}", type=Reply)
        if reply.error:
            raise BuildError(f"the output cannot be written: {reply.error}")
    except (OSError, msgspec.DecodeError) as error:
        raise NoAnswer(Ask.OUTPUT, name) from error
    finally:
        line.close()


def platforms_of(text: str) -> list[str]:
    """Read `--platform A,B`. Raises for what is no platform."""
    wanted = [part for part in text.split(",") if part]
    for part in wanted:
        platforms.parse(part)
    return wanted or [""]
