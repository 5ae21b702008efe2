"""`build --call check|outline|targets`: what a Dockerfile is about, without building it; and its warnings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from trivet.build import instruction, lint
from trivet.build.builtin import CHECK
from trivet.build.error import DockerfileError
from trivet.build.graph import Stage
from trivet.build.lint import Check, Finding
from trivet.build.mount import RunMount
from trivet.build.session import Session
from trivet.client.schema import Progress

DIRECTIVE = re.compile(r"\s*#\s*(?:syntax|escape|check)\s*=", re.IGNORECASE)
CONTEXT = 2  # lines shown around one that is told about


def tell(session: Session) -> dict[str, Any]:
    """Answer what the request calls for."""
    match session.request.call:
        case "check":
            source = "\n".join(session.graph.dockerfile.rows)
            return {"warnings": [_shown(session, each) for each in _found(session)], "source": source}
        case "targets":
            return {"targets": [_target(session, stage) for stage in session.graph.stages]}
    return _outline(session)


def warn(session: Session) -> None:
    """Tell the findings of a build, or refuse it because of them. Raises `DockerfileError`."""
    dockerfile = session.graph.dockerfile
    found = _found(session)
    if found and _wanted(session).error:
        first = found[0]
        problem = f"{first.rule}: {first.text}"
        raise DockerfileError(
            dockerfile.file, first.line, problem, hint="the line `# check=error=true` makes it an error"
        )
    for each in found:
        text = f"{each.rule}: {each.text} ({dockerfile.file}:{each.line})"
        session.report(Progress(id=f"warning {each.line} {each.rule}", status=text))


def _found(session: Session) -> list[Finding]:
    return lint.check(session.graph.dockerfile, session.graph, _wanted(session), session.ignored.excludes)


def _wanted(session: Session) -> Check:
    """Read what is to be checked: by the request, or else by the Dockerfile."""
    return Check.read(session.request.build_args.get(CHECK, session.graph.dockerfile.check))


def _shown(session: Session, each: Finding) -> dict[str, Any]:
    dockerfile = session.graph.dockerfile
    return {**msgspec.to_builtins(each), "file": dockerfile.file, "excerpt": excerpt(dockerfile.rows, each.line)}


def excerpt(rows: tuple[str, ...], line: int) -> str:
    """Show a line between its neighbours, as BuildKit does."""
    first, last = max(line - CONTEXT, 1), min(line + CONTEXT, len(rows))
    shown = [
        f"{number:4} | {'>>>' if number == line else '   '} {rows[number - 1]}" for number in range(first, last + 1)
    ]
    return "\n".join(row.rstrip() for row in shown)


def _target(session: Session, stage: Stage) -> dict[str, Any]:
    last = stage.index == len(session.graph.stages) - 1
    comment = _comment(session.graph.dockerfile.rows, stage.origin.line, stage.origin.name)
    return {"name": stage.origin.name, "base": stage.image, "default": last, "description": comment}


def _comment(rows: tuple[str, ...], line: int, name: str) -> str:
    """Give the comment right above a line: what it says of `name` (`# NAME ...`, BuildKit's form), or all of it."""
    found: list[str] = []
    for row in reversed(rows[: line - 1]):
        if not row.strip().startswith("#") or DIRECTIVE.match(row):
            break
        found.insert(0, row.strip().lstrip("#").strip())
    named = [text.removeprefix(f"{name} ") for text in found if name and text.startswith(f"{name} ")]
    return named[0] if named else " ".join(found)


def _outline(session: Session) -> dict[str, Any]:
    """List the arguments, secrets and agents that a target uses."""
    graph = session.graph
    target = graph.target(session.request.target)
    stages = (*graph.needs(target), target)
    mounts = [
        mount
        for stage in stages
        for each in stage.instructions
        if isinstance(each, instruction.Run)
        for mount in each.mounts
    ]
    return {
        "name": target.origin.name,
        "description": _comment(graph.dockerfile.rows, target.origin.line, target.origin.name),
        "args": list(_arguments(session, stages)),
        "secrets": _ids(mounts, "secret"),
        "ssh": _ids(mounts, "ssh"),
        "caches": sorted({mount.id for mount in mounts if mount.kind == "cache"}),
    }


def _ids(mounts: list[RunMount], kind: str) -> list[dict[str, Any]]:
    found: dict[str, bool] = {}
    for mount in mounts:
        if mount.kind == kind:
            found[mount.id] = found.get(mount.id, False) or mount.required
    return [{"name": name, "required": required} for name, required in sorted(found.items())]


def _arguments(session: Session, stages: tuple[Stage, ...]) -> Iterator[dict[str, Any]]:
    graph = session.graph
    before = graph.dockerfile.instructions[: graph.dockerfile.instructions.index(graph.stages[0].origin)]
    given, seen = session.request.build_args, set[str]()
    for each in (*before, *(each for stage in stages for each in stage.instructions)):
        if isinstance(each, instruction.Arg):
            for name, default in each.pairs:
                if name not in seen:
                    comment = _comment(graph.dockerfile.rows, each.line, name)
                    yield {"name": name, "value": given.get(name, default or ""), "description": comment}
                seen.add(name)
