"""COPY, ADD and the directory of WORKDIR."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec

from trivet.build import cachekey
from trivet.build.archive import is_archive, unpacked
from trivet.build.configuration import directory_of
from trivet.build.error import BuildError
from trivet.build.ignore import Ignore
from trivet.build.instruction import Add, Copy, Instruction
from trivet.build.owner import MOST, resolve_owner
from trivet.build.pattern import has_wildcard
from trivet.build.placement import (
    Choice,
    NoSource,
    Placement,
    Target,
    checksum,
    choose,
    goes_into_directory,
    matching,
    newest,
    owned,
    parse_mode,
    place,
    target_of,
)
from trivet.build.session import Step
from trivet.build.state import State
from trivet.build.thread import in_thread
from trivet.build.transfer import Transfer
from trivet.build.tree import Tree
from trivet.build.word import expand_heredoc
from trivet.engine.image.commit import Draft
from trivet.isolation.plan import Root
from trivet.oci.layer import Layer

Word = Callable[[str], str]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A COPY or ADD with its variables replaced; `target` is as written, `path` absolute."""

    sources: tuple[str, ...]
    target: str
    path: str
    chown: str
    mode: int | None
    exclude: tuple[str, ...]

    @classmethod
    def of(cls, each: Copy, state: State, word: Word) -> Wish:
        """Replace the variables. Raises `BuildError`."""
        target, chmod = word(each.target), word(each.chmod)
        return cls(
            sources=tuple(word(source) for source in each.sources),
            target=target,
            path=directory_of(state.config, target),
            chown=word(each.chown),
            mode=parse_mode(chmod) if chmod else None,
            exclude=tuple(word(pattern) for pattern in each.exclude),
        )

    @property
    def into(self) -> bool:
        """Whether the target is a directory by the way it is written."""
        return goes_into_directory(self.target, [])


async def copy(step: Step, state: State, each: Copy, word: Word, source: Draft | None) -> State:
    """Carry out a COPY or ADD; `source` is what --from names, None the context."""
    wish = Wish.of(each, state, word)
    if source is not None:
        return await _copy_from(step, state, each, wish, source)
    session = step.session
    choices = await in_thread(_from_context, step, each, wish, state)
    return await _put(step, state, each, wish, choices, [], session.when(state, 0))


async def _copy_from(step: Step, state: State, each: Copy, wish: Wish, source: Draft) -> State:
    """Copy of another image: if its files are the same as last time, they needn't be read to know the result."""
    key = cachekey.stage_copy_key(
        state.chain,
        cachekey.chain(source.layers),
        wish.sources,
        target=wish.path,
        into=wish.into,
        chown=wish.chown,
        chmod=each.chmod,
        exclude=wish.exclude,
        timestamp=step.session.request.timestamp,
    )
    found = await step.cached(state, key, each.text)
    if found is not None:
        return found
    async with AsyncExitStack() as undo:
        root, _ = await step.root(source, undo)
        choices = await in_thread(_from_image, step, step.transfer(root), wish.sources, each.origin)
    return await _put(step, state, each, wish, choices, [key], step.session.when(state, 0))


async def _put(
    step: Step, state: State, each: Copy, wish: Wish, choices: list[Choice], keys: list[str], when: int
) -> State:
    """Write what was chosen into the image, unless the cache has it already."""
    session = step.session
    exclude = Ignore(wish.exclude, name=f"{each.keyword} --exclude")
    into = goes_into_directory(wish.target, choices)
    if len(choices) > 1 and not wish.into:
        raise BuildError(f"{each.keyword} of several sources needs a directory as target", hint=f"write {wish.target}/")
    content = await in_thread(_content, choices, exclude)
    key = cachekey.copy_key(
        state.chain,
        checksum(content),
        target=wish.path,
        into=into,
        chown=wish.chown,
        chmod=each.chmod,
        timestamp=session.request.timestamp,
    )
    found = await step.cached(state, key, each.text)
    if found is not None:
        for other in keys:
            session.tools.cache.keep(other, state.draft.layers, _top(state, found), found.created)
        return found
    when = session.when(state, max(when, newest(content)))

    async def make(root: Root, name: str) -> None:
        transfer = step.transfer(root)
        await in_thread(_write, step, transfer, wish, choices, exclude, state.config.working_dir)

    return await step.layered(state, [key, *keys], each.text, when, when, make)


def _content(choices: list[Choice], exclude: Ignore) -> list[Placement]:
    return place(choices, Target(directory="/", name=""), exclude)


def _top(before: State, after: State) -> Layer | None:
    return after.draft.layers[-1] if len(after.draft.layers) > len(before.draft.layers) else None


def _write(step: Step, transfer: Transfer, wish: Wish, choices: list[Choice], exclude: Ignore, cwd: str) -> None:
    ambiguous = not goes_into_directory(wish.target, choices)
    is_directory = ambiguous and transfer.is_directory(wish.path)
    target = target_of(wish.target, cwd, choices, is_directory=is_directory)
    spool = step.session.spool
    owner = None
    if wish.chown:
        owner = resolve_owner(wish.chown, lambda path: transfer.small_file(path, spool, MOST))
    placements = owned(place(choices, target, exclude), owner, wish.mode)
    transfer.write(target.directory, placements, spool, owner or (0, 0))


def _from_context(step: Step, each: Copy, wish: Wish, state: State) -> list[Choice]:
    """Choose among the context's files and the here-documents; archives of an ADD are unpacked."""
    session, chosen = step.session, list[Choice]()
    for source in wish.sources:
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


def _from_image(step: Step, transfer: Transfer, sources: tuple[str, ...], origin: str) -> list[Choice]:
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


async def make_directory(step: Step, state: State, each: Instruction, path: str) -> State:
    """Make the directory of a WORKDIR where the image doesn't have it."""
    when = step.session.when(state, 0)
    key = cachekey.directory_key(state.chain, path, timestamp=step.session.request.timestamp)
    found = await step.cached(state, key, each.text)
    if found is not None:
        return found

    async def make(root: Root, name: str) -> None:
        await in_thread(step.transfer(root).make_directory, path)

    return await step.layered(state, [key], each.text, when, when, make)
