"""Stages: where each begins, and its instructions one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from trivet.base.error import TrivetError
from trivet.build import configuration, copy, instruction
from trivet.build.builtin import CACHE_SPACE
from trivet.build.command import run
from trivet.build.dockerfile import parse_line
from trivet.build.error import BuildError, DockerfileError, StepFailed
from trivet.build.graph import Stage, declare, expand_at, origins
from trivet.build.instruction import Copy, Instruction, Run, Workdir
from trivet.build.mount_source import Source
from trivet.build.origin import Files, image_draft, named_context, origin_of
from trivet.build.sandbox import PATH
from trivet.build.scope import env_list
from trivet.build.session import Session, Step
from trivet.build.source import read_source
from trivet.build.state import State
from trivet.build.tree import Tree
from trivet.engine.image.commit import scratch
from trivet.oci import platform as platforms

TITLE = 100  # characters of an instruction that progress shows


async def build_target(session: Session, target: Stage) -> State:
    """Build a stage and all it needs, those that don't wait for one another side by side.

    The first failure ends the others; it is raised when they have ended.
    """
    tasks = _begin_stages(session, target)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in tasks if task.done() and not task.cancelled() and task.exception()]
        return (failed[0] if failed else session.stages[target.index]).result()
    finally:
        for task in session.stages.values():
            task.cancel()
        await asyncio.gather(*session.stages.values(), return_exceptions=True)


def _begin_stages(session: Session, target: Stage) -> list[asyncio.Task[State]]:
    """Begin a stage and those it needs, as far as they weren't."""
    wanted = (*session.graph.needs(target), target)
    for stage in wanted:
        if stage.index not in session.stages:
            session.stages[stage.index] = asyncio.create_task(_build_stage(session, stage))
    return [session.stages[stage.index] for stage in wanted]


async def _build_stage(session: Session, stage: Stage) -> State:
    state = await _begin(session, stage)
    triggers, state = _triggers(session, stage, state)
    for trigger in triggers:
        for origin in origins(trigger):
            if (source := session.graph.source(stage, trigger, origin)) is not None:
                _begin_stages(session, source)
    steps = (*triggers, *stage.instructions)
    for number, each in enumerate(steps, 1):
        for origin in origins(each):
            if (source := session.graph.source(stage, each, origin)) is not None:
                await session.stage(source.index)  # before the step's clock begins
        step = _step(session, stage, each, f"{number}/{len(steps)}")
        try:
            with located(session, each.line):
                state = await _carry_out(step, stage, state, each)
            if not isinstance(each, Run | Copy | Workdir):  # which tell themselves what it took
                step.tell("done")
        except TrivetError:
            step.tell("failed")
            raise
    return state


async def _begin(session: Session, stage: Stage) -> State:
    """Find what the stage begins with; like Docker, give it a PATH, which `ENV PATH=/x:$PATH` relies on."""
    state = await _base(session, stage)
    if "PATH" in state.env:
        return state
    env = env_list({**state.env, "PATH": PATH})
    return state.replacing(msgspec.structs.replace(state.config, env=env))


async def _base(session: Session, stage: Stage) -> State:
    scope, keeps_times = session.graph.scope.inner(), session.graph.keeps_times(stage)
    if stage.parent is not None:
        parent = await session.stage(stage.parent)
        inherited = msgspec.structs.replace(scope, declared=parent.scope.declared)
        return State(draft=parent.draft, scope=inherited, keeps_times=keeps_times)
    platform = stage.platform or session.platform
    if stage.image == "scratch":
        draft = scratch(platforms.parse(platform) if platform else platforms.host())
        return State(draft=draft, scope=scope, keeps_times=keeps_times)
    with located(session, stage.origin.line):
        named = session.request.contexts.get(stage.image.lower())
        found: Files = (
            await image_draft(session, stage.image, platform)
            if named is None
            else await named_context(session, stage.image.lower(), named)
        )
        if isinstance(found, Tree):
            hint = "begin with an image, and COPY --from it"
            raise BuildError(f"FROM {stage.image}: that context is files, not an image", hint=hint)
    return State(draft=found, scope=scope, keeps_times=keeps_times)


def _triggers(session: Session, stage: Stage, state: State) -> tuple[tuple[Instruction, ...], State]:
    """Take the ONBUILD instructions off the image a stage begins with."""
    texts = state.config.on_build or ()
    if not texts:
        return (), state
    file = f"{session.graph.dockerfile.file}:{stage.origin.line}: ONBUILD of {stage.image}"
    sources = [read_source(text, file) for text in texts]
    triggers = tuple(parse_line(source, line) for source in sources for line in source.lines)
    placed = tuple(msgspec.structs.replace(each, line=stage.origin.line) for each in triggers)
    return placed, state.replacing(msgspec.structs.replace(state.config, on_build=None))


def _step(session: Session, stage: Stage, each: Instruction, position: str) -> Step:
    several = len(session.graph.stages) > 1
    name = stage.origin.name or (f"stage-{stage.index}" if several else "")
    words = [session.platform if "," in session.request.platform else "", name, position]
    request = session.request
    step = Step(
        session=session,
        id=f"[{' '.join(word for word in words if word)}]",
        line=each.line,
        stage=stage.index,
        title=" ".join(each.text.split())[:TITLE],
        fresh=request.no_cache or stage.name in request.no_cache_filter,
    )
    step.tell()
    return step


async def _carry_out(step: Step, stage: Stage, state: State, each: Instruction) -> State:
    session = step.session
    dockerfile = session.graph.dockerfile

    def word(text: str, env: dict[str, str] | None = None) -> str:
        return expand_at(dockerfile, each, text, state.scope.variables(state.env if env is None else env))

    match each:
        case instruction.Run():
            space = session.request.build_args.get(CACHE_SPACE, "")
            mounts = [mount.expanded(word).within(space) for mount in each.mounts]
            sources = [Source(mount, await origin_of(session, stage, each, mount.origin)) for mount in mounts]
            return await run(step, state, each, sources)
        case Copy():
            return await copy.copy(step, state, each, word, await origin_of(session, stage, each, each.origin))
        case instruction.Arg():
            scope = declare(dockerfile, state.scope, each, state.env)
            changed = state.with_config(state.config, each.text, session.when(state))
            return msgspec.structs.replace(changed, scope=scope)
        case instruction.Maintainer():
            image = msgspec.structs.replace(state.draft.config, author=each.name)
            state = msgspec.structs.replace(state, draft=msgspec.structs.replace(state.draft, config=image))
            return state.with_config(state.config, each.text, session.when(state))
        case instruction.Workdir():
            config = configuration.apply(each, state.config, word)
            if config.working_dir != "/":
                state = await copy.make_directory(step, state, each, config.working_dir)
                return state.replacing(config)
    config = configuration.apply(each, state.config, word, has_cmd=state.has_cmd)
    has_cmd = state.has_cmd or isinstance(each, instruction.Cmd)
    return state.with_config(config, each.text, session.when(state), has_cmd=has_cmd)


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
