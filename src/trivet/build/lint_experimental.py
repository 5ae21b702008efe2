"""Build checks that are only made when they are asked for: `# check=experimental=RULE|all`."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator

from trivet.build import instruction
from trivet.build.dockerfile import Dockerfile
from trivet.build.graph import Graph
from trivet.build.remote import is_remote

EXPERIMENTAL = frozenset({"CopyIgnoredFile", "InvalidDefinitionDescription"})


def copied_though_ignored(dockerfile: Dockerfile, ignored: Callable[[str], bool]) -> Iterator[tuple[int, str]]:
    """Find files of the context that a COPY or ADD names and .dockerignore leaves out."""
    for each in dockerfile.instructions:
        if isinstance(each, instruction.Copy) and not each.origin:
            for source in each.sources:
                path = posixpath.normpath("/" + source).lstrip("/")
                if path and "$" not in source and not is_remote(source) and ignored(path):
                    yield each.line, f'attempting to {each.keyword} file "{source}" that is excluded by .dockerignore'


def undescribed(dockerfile: Dockerfile, graph: Graph) -> Iterator[tuple[int, str]]:
    """Find comments right above a FROM or an ARG that would be its description, and don't begin with its name."""
    for each in dockerfile.instructions:
        comment = dockerfile.rows[each.line - 2].strip() if each.line > 1 else ""
        if not comment.startswith("#") or not isinstance(each, instruction.From | instruction.Arg):
            continue
        names = [each.name] if isinstance(each, instruction.From) else [name for name, _ in each.pairs]
        words = comment[1:].split()
        if any(names) and words and words[0].rstrip(":").lower() not in [name.lower() for name in names]:
            kind = "build stage" if isinstance(each, instruction.From) else "argument"
            yield each.line, f"comment for {kind} should follow the format: # {names[0]} DESCRIPTION"
