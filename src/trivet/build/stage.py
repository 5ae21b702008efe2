"""Stages: where each begins, and its instructions one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from trivet.base.error import NotFound, TrivetError
from trivet.build import configuration, copy, instruction
from trivet.build.command import run
from trivet.build.dockerfile import parse_line
from trivet.build.error import BuildError, DockerfileError, StepFailed
from trivet.build.graph import Stage, declare, expand_at
from trivet.build.instruction import Copy, Instruction
from trivet.build.mount_source import Source
from trivet.build.sandbox import PATH
from trivet.build.scope import env_list
from trivet.build.session import Session, Step
from trivet.build.source import Line
from trivet.build.source import Source as Text
from trivet.build.state import State
from trivet.engine.image.commit import Draft, scratch
from trivet.engine.image.model import WrongPlatform
from trivet.oci import platform as platforms

TITLE = 100  # characters of an instruction that progress shows


async def build_stage(session: Session, stage: Stage) -> State:
    """Build a stage, and before it those it needs, each once."""
    known = session.states.get(stage.index)
    if known is not None:
        return known
    state = await _begin(session, stage)
    triggers, state = _triggers(session, stage, state)
    steps = (*triggers, *stage.instructions)
    for number, each in enumerate(steps, 1):
        with located(session, each.line):
            state = await _carry_out(_step(session, stage, each, f"{number}/{len(steps)}"), stage, state, each)
    session.states[stage.index] = state
    return state


async def _begin(session: Session, stage: Stage) -> State:
    """Find what the stage begins with; like Docker, give it a PATH, which `ENV PATH=/x:$PATH` relies on."""
    state = await _base(session, stage)
    if "PATH" in state.env:
        return state
    env = env_list({**state.env, "PATH": PATH})
    return state.replacing(msgspec.structs.replace(state.config, env=env))


async def _base(session: Session, stage: Stage) -> State:
    scope = session.graph.scope.inner()
    if stage.parent is not None:
        parent = await build_stage(session, session.graph.stages[stage.parent])
        return State(draft=parent.draft, scope=scope)
    if stage.image == "scratch":
        platform = stage.platform or session.request.platform
        return State(draft=scratch(platforms.parse(platform) if platform else platforms.host()), scope=scope)
    with located(session, stage.origin.line):
        draft = await image_draft(session, stage.image, stage.platform or session.request.platform)
    return State(draft=draft, scope=scope)


async def image_draft(session: Session, reference: str, platform: str) -> Draft:
    """Begin with an image, fetched if it isn't here, or is for another platform, or --pull asks for it."""
    images = session.tools.images
    try:
        if session.request.pull:
            await images.pull(reference, platform, session.report)
        draft = images.draft(reference, platform)
    except (NotFound, WrongPlatform):
        if session.request.pull:
            raise
        await images.pull(reference, platform, session.report)
        draft = images.draft(reference, platform)
    session.hold(draft)
    return draft


def _triggers(session: Session, stage: Stage, state: State) -> tuple[tuple[Instruction, ...], State]:
    """Take the ONBUILD instructions off the image a stage begins with."""
    texts = state.config.on_build or ()
    if not texts:
        return (), state
    file = f"{session.graph.dockerfile.file}:{stage.origin.line}: ONBUILD of {stage.image}"
    source = Text(file=file, escape="\\", lines=())
    triggers = tuple(parse_line(source, Line(number=number, text=text)) for number, text in enumerate(texts, 1))
    placed = tuple(msgspec.structs.replace(each, line=stage.origin.line) for each in triggers)
    return placed, state.replacing(msgspec.structs.replace(state.config, on_build=None))


def _step(session: Session, stage: Stage, each: Instruction, position: str) -> Step:
    several = len(session.graph.stages) > 1
    name = stage.origin.name or (f"stage-{stage.index}" if several else "")
    title = " ".join(each.text.split())[:TITLE]
    step = Step(session=session, id=f"[{name} {position}]".replace("[ ", "["), line=each.line, title=title)
    step.tell()
    return step


async def _carry_out(step: Step, stage: Stage, state: State, each: Instruction) -> State:
    session = step.session
    dockerfile = session.graph.dockerfile

    def word(text: str, env: dict[str, str] | None = None) -> str:
        return expand_at(dockerfile, each, text, state.scope.variables(state.env if env is None else env))

    match each:
        case instruction.Run():
            mounts = [mount.expanded(word) for mount in each.mounts]
            sources = [Source(mount, await _source(session, stage, each, mount.origin)) for mount in mounts]
            return await run(step, state, each, sources, int(time.time()))
        case Copy():
            return await copy.copy(step, state, each, word, await _source(session, stage, each, each.origin))
        case instruction.Arg():
            scope = declare(dockerfile, state.scope, each, state.env)
            changed = state.with_config(state.config, each.text, session.when(state, 0))
            return msgspec.structs.replace(changed, scope=scope)
        case instruction.Maintainer():
            image = msgspec.structs.replace(state.draft.config, author=each.name)
            state = msgspec.structs.replace(state, draft=msgspec.structs.replace(state.draft, config=image))
            return state.with_config(state.config, each.text, session.when(state, 0))
        case instruction.Workdir():
            config = configuration.apply(each, state.config, word)
            if config.working_dir != "/":
                state = await copy.make_directory(step, state, each, config.working_dir)
                return state.replacing(config)
    config = configuration.apply(each, state.config, word, has_cmd=state.has_cmd)
    has_cmd = state.has_cmd or isinstance(each, instruction.Cmd)
    return state.with_config(config, each.text, session.when(state, 0), has_cmd=has_cmd)


async def _source(session: Session, stage: Stage, each: Instruction, origin: str) -> Draft | None:
    """Find what `from` names: an earlier stage, or an image; None for the context."""
    if not origin:
        return None
    found = session.graph.source(stage, each, origin)
    if found is not None:
        return (await build_stage(session, found)).draft
    return await image_draft(session, origin, session.request.platform)


@contextmanager
def located(session: Session, line: int) -> Iterator[None]:
    """Put file and line in front of what goes wrong."""
    try:
        yield
    except (DockerfileError, StepFailed):
        raise
    except BuildError as error:
        raise DockerfileError(session.graph.dockerfile.file, line, error.message, hint=error.hint) from error
    except TrivetError as error:
        error.message = f"{session.graph.dockerfile.file}:{line}: {error.message}"
        error.args = (error.message,)
        raise
