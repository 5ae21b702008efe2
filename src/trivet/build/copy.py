"""COPY, ADD and the directory of WORKDIR."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec

from trivet.base.thread import in_thread
from trivet.build import cachekey
from trivet.build.chmod import parse_chmod
from trivet.build.configuration import directory_of
from trivet.build.error import BuildError
from trivet.build.git import is_whole
from trivet.build.ignore import Ignore
from trivet.build.instruction import Add, Copy, Instruction
from trivet.build.origin import Files
from trivet.build.owner import MOST, resolve_owner
from trivet.build.placement import (
    Choice,
    Dating,
    Target,
    checksum,
    goes_into_directory,
    newest,
    owned,
    place,
    target_of,
)
from trivet.build.selection import from_elsewhere, from_image, from_text, from_tree
from trivet.build.session import Step
from trivet.build.state import State
from trivet.build.transfer import Transfer
from trivet.build.tree import Tree
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
    chmod: str
    exclude: tuple[str, ...]
    parents: bool
    link: bool = False

    @classmethod
    def of(cls, each: Copy, state: State, word: Word) -> Wish:
        """Replace the variables. Raises `BuildError`."""
        target, chmod = word(each.target), word(each.chmod)
        if chmod:
            parse_chmod(chmod)
        return cls(
            sources=tuple(word(source) for source in each.sources),
            target=f"{target}/" if each.parents else target,
            path=directory_of(state.config, target),
            chown=word(each.chown),
            chmod=chmod,
            exclude=tuple(word(pattern) for pattern in each.exclude),
            parents=each.parents,
            link=each.link,
        )

    def below(self, state: State) -> str:
        """Name the files that the result depends on beside those taken; a linked layer lies on whatever there is."""
        return "linked" if self.link else state.chain

    @property
    def into(self) -> bool:
        """Whether the target is a directory by the way it is written."""
        return goes_into_directory(self.target, [])


async def copy(step: Step, state: State, each: Copy, word: Word, files: Files) -> State:
    """Carry out a COPY or ADD; `files` is what --from names, or the context."""
    wish = Wish.of(each, state, word)
    keys = _known(step, state, each, wish, files, word)
    for key in keys:
        if (found := await step.cached(state, key, each.text)) is not None:
            return found
    choices = await _choose(step, state, each, wish, files, word)
    return await _put(step, state, each, wish, choices, keys)


def _known(step: Step, state: State, each: Copy, wish: Wish, files: Files, word: Word) -> list[str]:
    """Name the result if it can be told without reading anything: of another image, and of a URL with a checksum."""
    source: list[object] = []
    if isinstance(files, Draft):
        source = [cachekey.chain(files.layers), step.session.when(State(draft=files, scope=state.scope))]
    elif isinstance(each, Add) and len(wish.sources) == 1 and not each.heredocs and is_whole(word(each.checksum)):
        source = [word(each.checksum), each.keep_git_dir, each.unpack]
    if not source:
        return []
    fields: list[object] = [*msgspec.structs.astuple(wish), state.keeps_times]
    return [cachekey.known_copy_key(wish.below(state), source, fields, epoch=step.session.when(state))]


async def _choose(step: Step, state: State, each: Copy, wish: Wish, files: Files, word: Word) -> list[Choice]:
    if isinstance(files, Tree):
        elsewhere = await from_elsewhere(step, each, wish.sources, word)
        chosen = await in_thread(from_tree, step, each, wish.sources, files, elsewhere)
        return [*chosen, *await in_thread(from_text, step, each, state)]
    async with AsyncExitStack() as undo:
        root, _ = await step.root(files, undo)
        chosen = await in_thread(from_image, step, step.transfer(root), wish.sources, each.origin, parents=wish.parents)
    latest = step.session.when(State(draft=files, scope=state.scope))
    return [msgspec.structs.replace(choice, dated=True, latest=latest) for choice in chosen]


async def _put(step: Step, state: State, each: Copy, wish: Wish, choices: list[Choice], keys: list[str]) -> State:
    """Write what was chosen into the image, unless the cache has it already."""
    session = step.session
    exclude = Ignore(wish.exclude, name=f"{each.keyword} --exclude")
    into = goes_into_directory(wish.target, choices)
    if len(choices) > 1 and not wish.into:
        raise BuildError(f"{each.keyword} of several sources needs a directory as target", hint=f"write {wish.target}/")
    epoch = session.when(state)
    content = await in_thread(place, choices, Target(directory="/", name=""), exclude, Dating(epoch))
    key = cachekey.copy_key(
        wish.below(state),
        checksum(content),
        target=wish.path,
        into=into,
        chown=wish.chown,
        mode=wish.chmod,
        epoch=epoch,
        keeps_times=state.keeps_times,
    )
    found = await step.cached(state, key, each.text)
    if found is not None:
        for other in keys:
            session.tools.cache.keep(other, state.draft.layers, _top(state, found), found.created)
        return found

    when = session.when(state, newest(content))
    dating = Dating(epoch, when + 1 if state.keeps_times else None)

    async def make(root: Root, name: str) -> None:
        writer = _Writer(step, step.transfer(root), wish, choices, exclude)
        await in_thread(writer.write, state.config.working_dir, dating)

    return await step.layered(state, [key, *keys], each.text, when, make, apart=wish.link)


def _top(before: State, after: State) -> Layer | None:
    return after.draft.layers[-1] if len(after.draft.layers) > len(before.draft.layers) else None


class _Writer:
    """Writes what was chosen into one root."""

    def __init__(self, step: Step, transfer: Transfer, wish: Wish, choices: list[Choice], exclude: Ignore) -> None:
        self._spool = step.session.spool
        self._transfer = transfer
        self._wish = wish
        self._choices = choices
        self._exclude = exclude

    def write(self, cwd: str, dating: Dating) -> None:
        """Write it."""
        wish, transfer = self._wish, self._transfer
        ambiguous = not goes_into_directory(wish.target, self._choices)
        is_directory = ambiguous and transfer.is_directory(wish.path)
        target = target_of(wish.target, cwd, self._choices, is_directory=is_directory)
        owner = resolve_owner(wish.chown, self._small_file) if wish.chown else None
        change = parse_chmod(wish.chmod) if wish.chmod else None
        placements = owned(place(self._choices, target, self._exclude, dating), owner, change)
        transfer.write(target.directory, placements, self._spool, owner or (0, 0))

    def _small_file(self, path: str) -> bytes:
        return self._transfer.small_file(path, self._spool, MOST)


async def make_directory(step: Step, state: State, each: Instruction, path: str) -> State:
    """Make the directory of a WORKDIR where the image doesn't have it."""
    when = step.session.when(state)
    key = cachekey.directory_key(state.chain, path, epoch=when)
    found = await step.cached(state, key, each.text)
    if found is not None:
        return found

    async def make(root: Root, name: str) -> None:
        await in_thread(step.transfer(root).make_directory, path)

    return await step.layered(state, [key], each.text, when, make)
