"""COPY's rules: which nodes of a tree go where in the image. Pure."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator

import msgspec

from trivet.build.chmod import Change
from trivet.build.error import BuildError
from trivet.build.ignore import Ignore
from trivet.build.pattern import PatternError, compile_pattern, has_wildcard
from trivet.build.tree import Node, Tree


class Placement(msgspec.Struct, frozen=True):
    """A node and its path below the directory that is written to."""

    path: str
    node: Node


class Dating(msgspec.Struct, frozen=True):
    """When files without a date of their own are from: `epoch`, or when they really are, but not before `live`."""

    epoch: int
    live: int | None = None


class Choice(msgspec.Struct, frozen=True):
    """What one source named: `name` as written (its last part), `path` in the tree with links followed.

    `prefix` is where below the target it goes, with --parents: then `parents` are the directories on the way.
    `dated` tells whether the files' times are part of the input (an archive's are, a working copy's aren't), which
    are no later than `latest` (Unix time) then.
    """

    name: str
    path: str
    tree: Tree
    prefix: str = ""
    parents: tuple[Placement, ...] = ()
    dated: bool = False
    latest: int | None = None

    def date(self, node: Node, dating: Dating) -> Node:
        """Give a node its time."""
        time = node.mtime_ns // 10**9
        if self.dated:
            when = time if self.latest is None else min(time, self.latest)
        else:
            when = dating.epoch if dating.live is None else max(time, dating.live)
        return msgspec.structs.replace(node, mtime_ns=when * 10**9)

    @property
    def node(self) -> Node:
        """The node itself."""
        return self.tree.nodes[self.path]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where files go: into `directory`, or to the one file `name` in it ("" when it is a directory)."""

    directory: str
    name: str


class NoSource(BuildError):
    """A source that names nothing."""

    def __init__(self, source: str, tree: Tree, *, hint: str | None = None) -> None:
        super().__init__(f"no {source} in {tree.name}", hint=hint)


def choose(tree: Tree, source: str) -> list[Choice]:
    """Find what a source means, links followed inside the tree. Raises `NoSource`, `BuildError`."""
    path = posixpath.normpath("/" + source).lstrip("/")
    if has_wildcard(path):
        found = matching(tree, path)
    else:
        found = [path]
    choices = [Choice(posixpath.basename(each), resolved(tree, source, each), tree) for each in found]
    if not choices:
        raise NoSource(source, tree, hint="no name matches the pattern")
    return choices


def choose_with_parents(tree: Tree, source: str) -> list[Choice]:
    """Find what a source of --parents means; what stands before `/./` in it isn't kept. Raises `NoSource`."""
    pivot, below = _pivot(source)
    top = resolved(tree, source, pivot) if pivot else ""
    found = matching(tree.below(top), below, deep=True) if has_wildcard(below) else [below]
    if not found:
        raise NoSource(source, tree, hint="no name matches the pattern")
    choices = []
    for each in found:
        path = resolved(tree, source, posixpath.join(top, each))
        directory = tree.nodes[path].kind == "directory"
        above = each if directory else posixpath.dirname(each)
        choices.append(
            Choice(posixpath.basename(each), path, tree, prefix=above, parents=tuple(_above(tree, top, above)))
        )
    return choices


def _pivot(source: str) -> tuple[str, str]:
    """Cut a source at its first `/./`; both parts are relative, without dots."""
    before, mark, after = f"/{source.removeprefix('./')}".partition("/./")
    parts = (before, after) if mark else ("", before)
    pivot, below = (posixpath.normpath("/" + part).strip("/") for part in parts)
    return pivot, below


def _above(tree: Tree, top: str, path: str) -> Iterator[Placement]:
    """List the directories that lead to a path, as the tree has them."""
    parts = path.split("/") if path else []
    for count in range(1, len(parts) + 1):
        directory = "/".join(parts[:count])
        try:
            node = tree.nodes[tree.resolve(posixpath.join(top, directory))]
        except KeyError:
            node = Node(kind="directory")
        yield Placement(directory, node)


def matching(tree: Tree, pattern: str, *, deep: bool = False) -> list[str]:
    """List the paths of a tree that match a pattern, sorted; `deep` gives `**` a meaning."""
    try:
        regex = compile_pattern(pattern, deep=deep)
    except PatternError as error:
        raise BuildError(str(error)) from error
    return sorted(path for path in tree.nodes if path and regex.fullmatch(path))


def resolved(tree: Tree, source: str, path: str) -> str:
    try:
        return tree.resolve(path)
    except KeyError:
        outside = posixpath.normpath(source).startswith("../")
        hint = f"nothing outside of {tree.name} can be copied" if outside else None
        raise NoSource(source, tree, hint=hint) from None


def target_of(target: str, cwd: str, choices: list[Choice], *, is_directory: bool) -> Target:
    """Work out where choices go; `is_directory` tells whether the target is one in the image already."""
    path = posixpath.normpath(posixpath.join("/", cwd, target))
    path = "/" + path.lstrip("/")
    if goes_into_directory(target, choices) or is_directory:
        return Target(directory=path, name="")
    return Target(directory=posixpath.dirname(path), name=posixpath.basename(path))


def goes_into_directory(target: str, choices: list[Choice]) -> bool:
    """Tell whether the target must be a directory, whatever the image holds."""
    return (
        target.endswith("/")
        or target in (".", "")
        or len(choices) > 1
        or any(choice.node.kind == "directory" for choice in choices)
    )


def place(choices: Iterable[Choice], target: Target, exclude: Ignore, dating: Dating) -> list[Placement]:
    """Lay the choices out below the target's directory; of a directory, its content. See `Choice.date`."""
    placed: dict[str, Node] = {}
    for choice in choices:
        for parent in choice.parents:
            if not exclude.excludes(parent.path):
                placed.setdefault(parent.path, choice.date(parent.node, dating))
        for path, node in _laid_out(choice, target):
            name = posixpath.join(choice.prefix, choice.name)
            if not exclude.excludes(path if choice.node.kind == "directory" else name):
                placed[path] = choice.date(node, dating)
    return [Placement(path, placed[path]) for path in sorted(placed)]


def _laid_out(choice: Choice, target: Target) -> Iterator[tuple[str, Node]]:
    if choice.node.kind != "directory":
        yield posixpath.join(choice.prefix, target.name or choice.name), choice.node
        return
    for path, node in choice.tree.walk(choice.path):
        inner = path[len(choice.path) :].lstrip("/")
        if inner:
            yield posixpath.join(choice.prefix, inner), node


def owned(placements: Iterable[Placement], owner: tuple[int, int] | None, change: Change | None) -> list[Placement]:
    """Give everything one owner, and files and directories another mode; None leaves what the source has."""
    changes: dict[str, int] = {} if owner is None else {"uid": owner[0], "gid": owner[1]}
    result = []
    for each in placements:
        more = {} if change is None or each.node.kind == "symlink" else {"mode": change(each.node)}
        result.append(Placement(each.path, msgspec.structs.replace(each.node, **changes, **more)))
    return result


def checksum(placements: Iterable[Placement]) -> str:
    """Digest everything about the files that ends up in the image."""
    state = hashlib.sha256()
    for each in placements:
        node = msgspec.structs.replace(each.node, offset=0)
        fields = [getattr(node, name) for name in node.__struct_fields__ if name != "xattrs"]
        attributes = [[name.encode("utf-8", "surrogateescape"), value] for name, value in node.xattrs]
        fields = [field.encode("utf-8", "surrogateescape") if isinstance(field, str) else field for field in fields]
        state.update(msgspec.msgpack.encode([each.path.encode("utf-8", "surrogateescape"), fields, attributes]))
    return state.hexdigest()


def newest(placements: Iterable[Placement]) -> int:
    """Tell when the newest of the files was changed, in Unix time; 0 for none."""
    return max((each.node.mtime_ns // 10**9 for each in placements), default=0)
