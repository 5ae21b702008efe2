"""COPY's rules: which nodes of a tree go where in the image. Pure."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable

import msgspec

from trivet.build.error import BuildError
from trivet.build.ignore import Ignore
from trivet.build.pattern import PatternError, compile_pattern, has_wildcard
from trivet.build.tree import Node, Tree


class Placement(msgspec.Struct, frozen=True):
    """A node and its path below the directory that is written to."""

    path: str
    node: Node


class Choice(msgspec.Struct, frozen=True):
    """What one source named: `name` as written (its last part), `path` in the tree with links followed."""

    name: str
    path: str
    tree: Tree

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
    choices = [Choice(posixpath.basename(each), _resolve(tree, source, each), tree) for each in found]
    if not choices:
        raise NoSource(source, tree, hint="no name matches the pattern")
    return choices


def matching(tree: Tree, pattern: str) -> list[str]:
    """List the paths of a tree that match a pattern, sorted."""
    try:
        regex = compile_pattern(pattern)
    except PatternError as error:
        raise BuildError(str(error)) from error
    return sorted(path for path in tree.nodes if path and regex.fullmatch(path))


def _resolve(tree: Tree, source: str, path: str) -> str:
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


def place(choices: Iterable[Choice], target: Target, exclude: Ignore) -> list[Placement]:
    """Lay the choices out below the target's directory; of a directory, its content."""
    placed: dict[str, Node] = {}
    for choice in choices:
        if choice.node.kind != "directory":
            placed[target.name or choice.name] = choice.node
            continue
        for path, node in choice.tree.walk(choice.path):
            inner = path[len(choice.path) :].lstrip("/")
            if inner and not exclude.excludes(inner):
                placed[inner] = node
    return [Placement(path, placed[path]) for path in sorted(placed)]


def owned(placements: Iterable[Placement], owner: tuple[int, int] | None, mode: int | None) -> list[Placement]:
    """Give everything one owner, and files and directories one mode; None leaves what the source has."""
    changes: dict[str, int] = {} if owner is None else {"uid": owner[0], "gid": owner[1]}
    result = []
    for each in placements:
        more = {} if mode is None or each.node.kind == "symlink" else {"mode": mode}
        result.append(Placement(each.path, msgspec.structs.replace(each.node, **changes, **more)))
    return result


def checksum(placements: Iterable[Placement]) -> str:
    """Digest everything about the files that ends up in the image, but not when they were changed."""
    state = hashlib.sha256()
    for each in placements:
        node = msgspec.structs.replace(each.node, offset=0, mtime_ns=0)
        fields = [getattr(node, name) for name in node.__struct_fields__ if name != "xattrs"]
        attributes = [[name.encode("utf-8", "surrogateescape"), value] for name, value in node.xattrs]
        fields = [field.encode("utf-8", "surrogateescape") if isinstance(field, str) else field for field in fields]
        state.update(msgspec.msgpack.encode([each.path.encode("utf-8", "surrogateescape"), fields, attributes]))
    return state.hexdigest()


def newest(placements: Iterable[Placement]) -> int:
    """Tell when the newest of the files was changed, in Unix time; 0 for none."""
    return max((each.node.mtime_ns // 10**9 for each in placements), default=0)


def parse_mode(text: str) -> int:
    """Read --chmod. Raises `BuildError`."""
    if not re.fullmatch("[0-7]{3,4}", text):
        raise BuildError(f"--chmod={text} is not an octal mode", hint="write --chmod=755")
    return int(text, 8)
