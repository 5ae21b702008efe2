"""Compose files as data: YAML 1.2's core schema, the tags !reset and !override, and bounds on what is hostile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trivet.base.error import InvalidArgument, NotFound

SIZE = 4 << 20  # bytes of a file
NODES = 200_000  # after aliases are followed: a billion laughs are short


class ComposeError(InvalidArgument):
    """A compose file says something that can't be meant."""

    def __init__(self, place: str, words: str, hint: str = "") -> None:
        super().__init__(f"{place}: {words}", hint=hint or None)


class Reset(NamedTuple):
    """`!reset`: what an earlier file said of this is forgotten."""


class Override(NamedTuple):
    """`!override`: this replaces what an earlier file said."""

    value: Any


class _Loader(yaml.SafeLoader):
    """Numbers with a point, dates and yes/no stay the text they are: YAML 1.2 has no dates, and 1.10 is no 1.1."""

    # Typed as where it is inherited from.
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), [*_first.replace("\0", ""), ""])


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    text = str(loader.construct_scalar(node))
    # 0755 is a mode that people mean, and an int would forget the 0.
    return text if len(text.lstrip("+-")) > 1 and text.lstrip("+-").startswith("0") else int(text)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set[str]()
    for key, _ in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key is not a word", key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return {str(key.value): loader.construct_object(value, deep=True) for key, value in node.value}


def _override(loader: _Loader, node: yaml.Node) -> Override:
    if isinstance(node, yaml.MappingNode):
        return Override(_mapping(loader, node))
    if isinstance(node, yaml.SequenceNode):
        return Override(loader.construct_sequence(node, deep=True))
    return Override(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("!reset", lambda loader, node: Reset())
_Loader.add_constructor("!override", _override)


def read(path: Path) -> dict[str, Any]:
    """Read a compose file. Raises `ComposeError` with the line, or `NotFound`."""
    try:
        with open(0, "rb", closefd=False) if str(path) == "-" else path.open("rb") as file:
            data = file.read(SIZE + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no compose file {path}") from None
    except OSError as error:
        raise ComposeError(str(path), (error.strerror or "cannot be read").lower()) from error
    if len(data) > SIZE:
        raise ComposeError(str(path), f"is larger than {SIZE >> 20} MiB")
    return parse(data, str(path))


def parse(data: bytes, name: str) -> dict[str, Any]:
    """Read the text of a compose file. Raises `ComposeError` with the line."""
    try:
        found = yaml.load(data, _Loader)  # a SafeLoader with fewer types
    except yaml.MarkedYAMLError as error:
        line = f" on line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ComposeError(name, f"{error.problem or error.context}{line}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ComposeError(name, f"is no YAML: {str(error).partition(chr(10))[0]}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ComposeError(name, "is no mapping at its top")
    _count(found, name)
    return found


def _count(value: Any, name: str) -> None:
    pending, left = [value], NODES
    while pending:
        one = pending.pop()
        left -= 1
        if left < 0:
            raise ComposeError(name, f"has more than {NODES} values once its aliases are followed")
        if isinstance(one, Override):
            pending.append(one.value)
        elif isinstance(one, dict):
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)
