"""COPY, ADD and the directory of WORKDIR."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec

from trivet.build import cachekey
from trivet.build.configuration import directory_of
from trivet.build.error import BuildError
from trivet.build.ignore import Ignore
from trivet.build.instruction import Copy, Instruction
from trivet.build.owner import MOST, resolve_owner
from trivet.build.placement import (
    Choice,
    Placement,
    Target,
    checksum,
    goes_into_directory,
    newest,
    owned,
    parse_mode,
    place,
    target_of,
)
from trivet.build.selection import from_context, from_image
from trivet.build.session import Step
from trivet.build.state import State
from trivet.build.thread import in_thread
from trivet.build.transfer import Transfer
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
    choices = await in_thread(from_context, step, each, wish.sources, state)
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
        mode=wish.mode,
        exclude=wish.exclude,
        timestamp=step.session.request.timestamp,
    )
    found = await step.cached(state, key, each.text)
    if found is not None:
        return found
    async with AsyncExitStack() as undo:
        root, _ = await step.root(source, undo)
        choices = await in_thread(from_image, step, step.transfer(root), wish.sources, each.origin)
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
        mode=wish.mode,
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
