"""Instructions to stages, and which stage needs which."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from trivet.build.dockerfile import Dockerfile
from trivet.build.error import BuildError, DockerfileError
from trivet.build.instruction import Arg, Copy, From, Instruction, Run
from trivet.build.scope import Scope
from trivet.build.word import WordError, expand


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One FROM and what follows. `image` and `platform` are expanded; `parent` is the earlier stage `image` names."""

    index: int
    origin: From
    image: str
    platform: str
    parent: int | None
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The name after AS, or the number."""
        return self.origin.name or str(self.index)


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """All stages in order; `scope` holds the arguments declared before the first FROM.

    `contexts` are names that the request gives another meaning than the Dockerfile does.
    """

    dockerfile: Dockerfile
    scope: Scope
    stages: tuple[Stage, ...]
    contexts: frozenset[str] = frozenset()

    def target(self, name: str) -> Stage:
        """Find the stage to build; "" is the last. Raises `BuildError`."""
        if not name:
            return self.stages[-1]
        stage = self.find(name.lower(), len(self.stages))
        if stage is None:
            names = ", ".join(stage.name for stage in self.stages)
            raise BuildError(f"{self.dockerfile.file} has no stage {name}", hint=f"its stages: {names}")
        return stage

    def find(self, ref: str, before: int) -> Stage | None:
        """Find an earlier stage by name or number; the nearest of equal names."""
        if ref in self.contexts:
            return None
        for stage in reversed(self.stages[:before]):
            if ref == stage.origin.name or ref == str(stage.index):
                return stage
        return None

    def source(self, stage: Stage, each: Instruction, origin: str) -> Stage | None:
        """Find the stage that `from` names; None means an image. Raises `DockerfileError`."""
        found = self.find(origin.lower(), stage.index)
        if found is not None or origin.lower() in self.contexts:
            return found
        later = self.find(origin.lower(), len(self.stages))
        if later is not None or origin.isdigit():
            problem = f"{each.keyword} from={origin} does not name an earlier stage"
            raise DockerfileError(self.dockerfile.file, each.line, problem)
        return None

    def needs(self, stage: Stage) -> tuple[Stage, ...]:
        """List the stages that have to be built before, each once, in order of the file."""
        wanted = {stage.index}
        for candidate in reversed(self.stages[: stage.index + 1]):
            if candidate.index in wanted:
                wanted.update(self.sources(candidate))
        return tuple(self.stages[index] for index in sorted(wanted - {stage.index}))

    def keeps_times(self, stage: Stage) -> bool:
        """Tell whether a stage, or one that goes on from it, shows a RUN what was kept of earlier builds."""
        shows = any(
            mount.kind == "cache" for each in stage.instructions if isinstance(each, Run) for mount in each.mounts
        )
        return shows or any(self.keeps_times(other) for other in self.stages if other.parent == stage.index)

    def sources(self, stage: Stage) -> set[int]:
        """Number the stages this one takes its root or files of. Raises `DockerfileError`."""
        found = {stage.parent} if stage.parent is not None else set()
        for each in stage.instructions:
            sources = (self.source(stage, each, origin) for origin in origins(each))
            found.update(source.index for source in sources if source)
        return found


def origins(each: Instruction) -> list[str]:
    """List what an instruction takes files `from`."""
    if isinstance(each, Copy):
        return [each.origin] if each.origin else []
    return [mount.origin for mount in each.mounts if mount.origin] if isinstance(each, Run) else []


def build_graph(dockerfile: Dockerfile, scope: Scope, contexts: Iterable[str] = ()) -> Graph:
    """Cut a Dockerfile into stages and check that they refer to one another. Raises `DockerfileError`."""
    scope, rest = _outer(dockerfile, scope)
    if not rest:
        raise BuildError(f"{dockerfile.file} has no FROM", hint="begin with FROM scratch or FROM an image")
    names = frozenset(name.lower() for name in contexts)
    graph = Graph(dockerfile=dockerfile, scope=scope, stages=(), contexts=names)
    starts = [index for index, each in enumerate(rest) if isinstance(each, From)]
    for start, end in zip(starts, [*starts[1:], len(rest)], strict=True):
        graph = _with_stage(graph, rest[start:end])
    for stage in graph.stages:
        graph.sources(stage)  # says at once what is wrong in a stage that is never built
    return graph


def _outer(dockerfile: Dockerfile, scope: Scope) -> tuple[Scope, tuple[Instruction, ...]]:
    """Declare the arguments before the first FROM; anything else there is a mistake."""
    for index, each in enumerate(dockerfile.instructions):
        if isinstance(each, From):
            return scope, dockerfile.instructions[index:]
        if not isinstance(each, Arg):
            problem = f"{each.keyword} before the first FROM"
            raise DockerfileError(dockerfile.file, each.line, problem, hint="only ARG may stand there")
        scope = declare(dockerfile, scope, each, scope.outside())
    return scope, ()


def declare(dockerfile: Dockerfile, scope: Scope, arg: Arg, env: dict[str, str]) -> Scope:
    """Apply an ARG instruction; defaults may use what was declared before, and `env`."""
    for name, default in arg.pairs:
        variables = scope.variables(env)
        value = None if default is None else expand_at(dockerfile, arg, default, variables)
        scope = scope.declare(expand_at(dockerfile, arg, name, variables), value)
    return scope


def expand_at(dockerfile: Dockerfile, at: Instruction, text: str, variables: dict[str, str]) -> str:
    """Expand variables; a mistake names file and line."""
    try:
        return expand(text, variables, dockerfile.escape)
    except WordError as error:
        raise DockerfileError(dockerfile.file, at.line, f"{at.keyword}: {error}") from error


def _with_stage(graph: Graph, instructions: tuple[Instruction, ...]) -> Graph:
    origin = instructions[0]
    assert isinstance(origin, From)
    dockerfile, variables = graph.dockerfile, graph.scope.outside()
    image = expand_at(dockerfile, origin, origin.image, variables)
    if not image:
        problem = f"FROM {origin.image} is empty after its variables were replaced"
        raise DockerfileError(dockerfile.file, origin.line, problem, hint="give the ARG a default, or --build-arg")
    parent = graph.find(image.lower(), len(graph.stages)) if not image.isdigit() else None
    stage = Stage(
        index=len(graph.stages),
        origin=origin,
        image=image,
        platform=expand_at(dockerfile, origin, origin.platform, variables),
        parent=parent.index if parent else None,
        instructions=instructions[1:],
    )
    return msgspec.structs.replace(graph, stages=(*graph.stages, stage))
