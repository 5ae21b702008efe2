"""Which files the sources of COPY, ADD and RUN --mount name: in the context, in the Dockerfile, in another image."""

from __future__ import annotations

import posixpath

from trivet.build.archive import is_archive, unpacked
from trivet.build.error import BuildError
from trivet.build.instruction import Add, Copy
from trivet.build.pattern import has_wildcard
from trivet.build.placement import Choice, NoSource, choose, matching
from trivet.build.session import Step
from trivet.build.state import State
from trivet.build.transfer import Transfer
from trivet.build.tree import Tree
from trivet.build.word import expand_heredoc


def from_context(step: Step, each: Copy, sources: tuple[str, ...], state: State) -> list[Choice]:
    """Choose among the context's files and the here-documents; archives of an ADD are unpacked."""
    session, chosen = step.session, list[Choice]()
    for source in sources:
        if isinstance(each, Add) and _is_remote(source):
            raise BuildError(f"ADD of {source} is not supported yet", hint="fetch it in a RUN, with curl or git")
        chosen += _choose(step, source)
    if isinstance(each, Add):
        chosen = [_unpack(step, choice) for choice in chosen]
    variables = state.scope.variables(state.env)
    for heredoc in each.heredocs:
        escape = session.graph.dockerfile.escape
        content = expand_heredoc(heredoc.content, variables, escape) if heredoc.expand else heredoc.content
        tree = Tree("the Dockerfile")
        tree.add(heredoc.name, session.spool.store(content.encode("utf-8", "surrogateescape")))
        chosen.append(Choice(heredoc.name, heredoc.name, tree))
    return chosen


def _choose(step: Step, source: str) -> list[Choice]:
    """Choose from the context; a file that .dockerignore hides gets a hint."""
    try:
        return choose(step.session.context, source)
    except NoSource as error:
        try:
            choose(step.session.whole, source)
        except BuildError:
            raise error from None
        raise NoSource(source, step.session.context, hint="it is left out by .dockerignore") from error


def _unpack(step: Step, choice: Choice) -> Choice:
    spool = step.session.spool
    if not is_archive(spool, choice.node):
        return choice
    return Choice(choice.name, "", unpacked(spool, choice.node, choice.name))


def _is_remote(source: str) -> bool:
    return source.startswith(("http://", "https://", "git@", "git://", "ssh://"))


def from_image(step: Step, transfer: Transfer, sources: tuple[str, ...], origin: str) -> list[Choice]:
    """Read the sources out of another image, each into a tree of its own."""
    chosen: list[Choice] = []
    for source in sources:
        path = posixpath.normpath("/" + source.lstrip("/"))
        found = _matches(step, transfer, path, origin) if has_wildcard(path) else [path]
        if not found:
            raise NoSource(source, Tree(origin), hint="no name matches the pattern")
        chosen += [_read(step, transfer, each, source, origin) for each in found]
    return chosen


def _matches(step: Step, transfer: Transfer, pattern: str, origin: str) -> list[str]:
    """List the paths of an image that match a pattern, by reading the directory before its first wildcard."""
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if has_wildcard(part))
    base = "/".join(parts[:first]) or "/"
    top = _read(step, transfer, base, pattern, origin)
    found = matching(top.tree, posixpath.join(top.path, *parts[first:]))
    return [posixpath.join(base, path[len(top.path) :].lstrip("/")) for path in found]


def _read(step: Step, transfer: Transfer, path: str, source: str, origin: str) -> Choice:
    real = transfer.real(path)
    if real is None:
        raise NoSource(source, Tree(origin))
    tree = transfer.read(real, step.session.spool, origin)
    names = tree.children("")
    is_top = posixpath.normpath(real) == "/"
    return Choice(posixpath.basename(path), "" if is_top else names[0], tree)
