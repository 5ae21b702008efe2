"""One build, from a request and a context to an image; the engine imports it, and all that it takes, with the first."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from trivet.base.thread import in_thread
from trivet.build import outline, remote
from trivet.build.builtin import BUILT_IN, KEEP_GIT, is_true, obeying
from trivet.build.cache_export import export, inlined
from trivet.build.cache_import import Import, imports
from trivet.build.caller import Caller
from trivet.build.device import GRANT, is_name
from trivet.build.dockerfile import parse
from trivet.build.error import BuildError, ContextError
from trivet.build.graph import Graph, build_graph
from trivet.build.ignore import IGNORE_FILE, Ignore
from trivet.build.output import deliver, platforms_of
from trivet.build.scope import PROXIES, Scope, platform_arguments
from trivet.build.session import Session, WorkDirectory, Workplace
from trivet.build.source import MAXIMUM
from trivet.build.spool import Spool
from trivet.build.stage import build_target
from trivet.build.state import State
from trivet.build.tool import Report
from trivet.build.tree import Tree
from trivet.client.schema import Progress
from trivet.client.schema_build import BuildRequest
from trivet.engine.image.commit import Draft
from trivet.engine.snapshot.stream import Readable, decompressed
from trivet.oci import platform as platforms
from trivet.oci import reference as references

if TYPE_CHECKING:
    from trivet.build.build import Builder

CONTEXT = "the build context"
ENTITLEMENTS = ("network.host", "security.insecure", GRANT)
PARALLEL = 4  # steps that run side by side, on small machines too


async def make(builder: Builder, request: BuildRequest, context: Readable, report: Report) -> dict[str, Any]:
    """Do what `Builder.build` promises."""
    check(request)
    request = obeying(request)
    wanted = platforms_of(request.platform)
    async with AsyncExitStack() as undo:
        caller = builder.callers.open(request.session)
        undo.callback(caller.close)
        place = _place(builder, request, report, caller, undo)
        files = await _files(place, context)
        if request.call != "build":
            return outline.tell(_session(msgspec.structs.replace(place, platform=wanted[0]), files))
        imported, sessions, drafts = await imports(place), [], []
        for platform in wanted:
            session = _session(msgspec.structs.replace(place, platform=platform), files, imported)
            sessions.append(session)
            outline.warn(session)
            state = await build_target(session, session.graph.target(request.target))
            drafts.append(_labelled(state, request.labels))
        await place.caught_up()
        _warn(session, report)
        result = await deliver(sessions, drafts, inlined)
        await export(sessions)
        return result


def _place(builder: Builder, request: BuildRequest, report: Report, caller: Caller, undo: AsyncExitStack) -> Workplace:
    directory = WorkDirectory(builder.tools.home / "work" / secrets.token_hex(8))
    undo.push_async_callback(directory.remove)
    purpose = f"build of {', '.join(request.tags) or 'an image'}"
    return Workplace(
        tools=builder.tools,
        request=request,
        report=report,
        caller=caller,
        undo=undo,
        platform="",
        slots=asyncio.Semaphore(max(os.cpu_count() or 1, PARALLEL)),
        lease=undo.enter_context(builder.tools.images.leases.hold(purpose)),
        spool=undo.enter_context(Spool(builder.tools.home / "work")),
        directory=directory,
        drafts=builder.drafts,
        locks=builder.locks,
    )


class _Files(NamedTuple):
    """The context as it came, what is to be left out of it, and the tree that holds the Dockerfile."""

    whole: Tree
    ignored: Ignore
    described: Tree


async def _files(place: Workplace, sent: Readable) -> _Files:
    """Read the context, or fetch it from elsewhere; then only a Dockerfile may have been sent."""
    request, spool = place.request, place.spool
    tree = await in_thread(_read_context, spool, sent)
    keep_git = is_true(request.build_args.get(KEEP_GIT, ""))
    whole = await remote.context(place, request.remote, keep_git_dir=keep_git) if request.remote else tree
    described = tree if request.dockerfile in tree.nodes else whole
    return _Files(whole, _ignored(request, whole, spool), described)


def _session(place: Workplace, files: _Files, imported: Sequence[Import] = ()) -> Session:
    return Session(
        **{name: getattr(place, name) for name in Workplace.__struct_fields__},
        graph=_graph(place, files.described),
        context=files.whole.without(files.ignored.excludes),
        ignored=files.ignored,
        whole=files.whole,
        imports=imported,
    )


def _read_context(spool: Spool, context: Readable) -> Tree:
    return spool.take(decompressed(context, subject=CONTEXT), CONTEXT, anonymous=True)


def _graph(place: Workplace, context: Tree) -> Graph:
    """Read the Dockerfile and cut it into stages."""
    request, spool = place.request, place.spool
    shown = request.dockerfile
    if shown.startswith(".dockerfile."):  # .dockerfile.<random>[.<its own name>]: sent beside the context
        shown = ".".join(shown.split(".")[3:]) or "Dockerfile"
    text = _text(context, spool, request.dockerfile)
    if text is None:
        raise BuildError(f"{CONTEXT} has no {shown}", hint="name the Dockerfile with --file")
    host = platforms.host()
    target = platforms.parse(place.platform) if place.platform else host
    given = {**platform_arguments(target, host), "TARGETSTAGE": request.target or "default"}
    return build_graph(parse(text, shown), Scope(given=request.build_args, platform=given), request.contexts)


def check(request: BuildRequest) -> None:
    """Refuse what can't be meant, before anything is done."""
    for tag in request.tags:
        references.parse(tag)
    for word in request.allow:
        grant, equals, name = word.partition("=")
        if word not in ENTITLEMENTS and not (grant == GRANT and equals and is_name(name)):
            hint = f"what can be granted: {', '.join(ENTITLEMENTS)}, device=VENDOR/CLASS=NAME"
            raise BuildError(f"--allow {word} is unknown", hint=hint)


def _ignored(request: BuildRequest, context: Tree, spool: Spool) -> Ignore:
    """Read what the Dockerfile's own .dockerignore says, or else the context's."""
    for name in (f"{request.dockerfile}{IGNORE_FILE}", IGNORE_FILE):
        text = _text(context, spool, name)
        if text is not None:
            return Ignore.read(text, name=name)
    return Ignore([])


def _text(context: Tree, spool: Spool, path: str) -> str | None:
    """Read a text file of the context; None if there is no such file."""
    try:
        node = context.nodes[context.resolve(path)]
    except KeyError:
        return None
    if node.kind != "file":
        return None
    if node.size > MAXIMUM:
        raise ContextError(f"{path} is larger than {MAXIMUM >> 20} MiB")
    return spool.read(node, MAXIMUM).decode("utf-8", "replace")


def _labelled(state: State, labels: dict[str, str]) -> Draft:
    """Add the request's labels."""
    if not labels:
        return state.draft
    config = msgspec.structs.replace(state.config, labels={**(state.config.labels or {}), **labels})
    image = msgspec.structs.replace(state.draft.config, config=config)
    return msgspec.structs.replace(state.draft, config=image)


def _warn(session: Session, report: Report) -> None:
    """Tell which arguments of the request no ARG took."""
    text = "\n".join(each.text for each in session.graph.dockerfile.instructions if each.keyword == "ARG")
    known = {*PROXIES, *BUILT_IN, *re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)}
    unused = sorted(set(session.request.build_args) - known)
    if unused:
        report(Progress(id="warning", status=f"no ARG takes the build argument {', '.join(unused)}"))
