"""Which files the sources of COPY, ADD and RUN --mount name: in the context, in the Dockerfile, in another image."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from trivet.build.archive import is_archive, unpacked
from trivet.build.error import BuildError
from trivet.build.instruction import Add, Copy
from trivet.build.pattern import has_wildcard
from trivet.build.placement import Choice, NoSource, choose, choose_with_parents, matching
from trivet.build.remote import add, is_remote, shown
from trivet.build.session import Step
from trivet.build.state import State
from trivet.build.transfer import Transfer
from trivet.build.tree import Tree
from trivet.build.word import expand_heredoc


async def from_elsewhere(
    step: Step, each: Copy, sources: tuple[str, ...], word: Callable[[str], str]
) -> dict[str, Choice]:
    """Fetch the sources of an ADD that are URLs and repositories."""
    if not isinstance(each, Add):
        return {}
    wanted = [source for source in sources if is_remote(source)]
    checksum = word(each.checksum)
    if checksum and len(wanted) != 1:
        raise BuildError("ADD --checksum is for one URL or one repository", hint="write an ADD for each source")
    return {
        source: await add(
            step.session, source, checksum=checksum, keep_git_dir=each.keep_git_dir, unpack=bool(each.unpack)
        )
        for source in wanted
    }


def from_tree(
    step: Step, each: Copy, sources: tuple[str, ...], tree: Tree, elsewhere: dict[str, Choice]
) -> list[Choice]:
    """Choose among the files of a context; local archives of an ADD are unpacked."""
    chosen = list[Choice]()
    for source in sources:
        if source in elsewhere:
            chosen.append(_named(elsewhere[source], each, source))
            continue
        found = _choose(step, source, tree, parents=each.parents)
        unpack = isinstance(each, Add) and each.unpack is not False
        chosen += [_unpack(step, choice) for choice in found] if unpack else found
    return chosen


def _named(choice: Choice, each: Copy, source: str) -> Choice:
    if not choice.name and choice.node.kind == "file" and each.target.endswith("/"):
        raise BuildError(f"{shown(source)} gives no file name", hint=f"write the whole target: {each.target}NAME")
    return choice


def from_text(step: Step, each: Copy, state: State) -> list[Choice]:
    """Make files of the here-documents."""
    session, chosen = step.session, list[Choice]()
    variables = state.scope.variables(state.env)
    for heredoc in each.heredocs:
        escape = session.graph.dockerfile.escape
        content = expand_heredoc(heredoc.content, variables, escape) if heredoc.expand else heredoc.content
        tree = Tree("the Dockerfile")
        tree.add(heredoc.name, session.spool.store(content.encode("utf-8", "surrogateescape")))
        chosen.append(Choice(heredoc.name, heredoc.name, tree))
    return chosen


def _choose(step: Step, source: str, tree: Tree, *, parents: bool) -> list[Choice]:
    """Choose from a context; a file that .dockerignore hides gets a hint."""
    try:
        return choose_with_parents(tree, source) if parents else choose(tree, source)
    except NoSource as error:
        if not _is_hidden(step, tree, source):
            raise
        raise NoSource(source, step.session.context, hint="it is left out by .dockerignore") from error


def _is_hidden(step: Step, tree: Tree, source: str) -> bool:
    """Tell whether .dockerignore leaves a source out; the command doesn't even send what it names."""
    session = step.session
    if tree is not session.context:
        return False
    try:
        choose(session.whole, source)
    except BuildError:
        return session.ignored.excludes(posixpath.normpath(source).lstrip("/"))
    return True


def _unpack(step: Step, choice: Choice) -> Choice:
    spool = step.session.spool
    if not is_archive(spool, choice.node):
        return choice
    return Choice(choice.name, "", unpacked(spool, choice.node, choice.name), dated=True)


def from_image(
    step: Step, transfer: Transfer, sources: tuple[str, ...], origin: str, *, parents: bool = False
) -> list[Choice]:
    """Read the sources out of another image, each into a tree of its own."""
    chosen: list[Choice] = []
    for source in sources:
        if parents:
            chosen += _with_parents(step, transfer, source, origin)
            continue
        path = posixpath.normpath("/" + source.lstrip("/"))
        found = _matches(step, transfer, path, origin) if has_wildcard(path) else [path]
        if not found:
            raise NoSource(source, Tree(origin), hint="no name matches the pattern")
        chosen += [_read(step, transfer, each, source, origin) for each in found]
    return chosen


def _with_parents(step: Step, transfer: Transfer, source: str, origin: str) -> list[Choice]:
    """Read what --parents wants: all below the last directory that is named without wildcards."""
    parts = source.split("/")
    fixed = next((index for index, part in enumerate(parts) if has_wildcard(part)), len(parts) - 1)
    base = posixpath.normpath("/" + "/".join(parts[:fixed]))
    read = _read(step, transfer, base, source, origin)
    tree = Tree(origin)
    for path, node in read.tree.walk(read.path):
        place = posixpath.join(base, path[len(read.path) :].lstrip("/")).strip("/")
        if place:
            tree.add(place, node)
    return choose_with_parents(tree, source)


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
