"""`$NAME` and `${NAME:-default}` in compose files, and the .env files their values come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivet.cli.compose.document import ComposeError, Override

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*(?:=\s*(.*))?")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}
DEPTH = 20


def everywhere(value: Any, variables: Mapping[str, str], place: str = "") -> Any:
    """Put values in for the names in all texts of a document. Raises `ComposeError` with the path of the text."""
    if isinstance(value, str):
        return text(value, variables, place)
    if isinstance(value, Override):
        return Override(everywhere(value.value, variables, place))
    if isinstance(value, dict):
        return {key: everywhere(one, variables, f"{place}.{key}".lstrip(".")) for key, one in value.items()}
    if isinstance(value, list):
        return [everywhere(one, variables, f"{place}[{number}]") for number, one in enumerate(value)]
    return value


def text(template: str, variables: Mapping[str, str], place: str, depth: int = 0) -> str:
    """Put values in for names; `$$` is a dollar. Raises `ComposeError` for `${NAME:?words}` and what can't be read."""
    if "$" not in template:
        return template
    if depth > DEPTH:
        raise ComposeError(place, "defaults within defaults go too deep")
    made, rest = "", template
    while rest:
        before, dollar, rest = rest.partition("$")
        made += before
        if not dollar:
            break
        if rest.startswith("$"):
            made, rest = f"{made}$", rest[1:]
        elif rest.startswith("{"):
            inner, rest = _braced(rest, template, place)
            made += _expand(inner, variables, place, template, depth)
        elif match := _NAME.match(rest):
            made, rest = made + variables.get(match[0], ""), rest[match.end() :]
        else:
            raise ComposeError(place, f"{template!r} has a $ without a name", "write $$ for a dollar")
    return made


def _braced(rest: str, template: str, place: str) -> tuple[str, str]:
    level = 0
    for index, character in enumerate(rest):
        if character == "{":
            level += 1
        elif character == "}":
            level -= 1
            if level == 0:
                return rest[1:index], rest[index + 1 :]
    raise ComposeError(place, f"{template!r} has a ${{ without its }}")


def _expand(inner: str, variables: Mapping[str, str], place: str, template: str, depth: int) -> str:
    match = _NAME.match(inner)
    if match is None:
        raise ComposeError(place, f"{template!r} names no variable", "write $$ for a dollar")
    name, rest = match[0], inner[match.end() :]
    if not rest:
        return variables.get(name, "")
    operator = next((one for one in _OPERATORS if rest.startswith(one)), None)
    if operator is None:
        raise ComposeError(place, f"{template!r}: {rest!r} is none of {', '.join(_OPERATORS)}")
    there = bool(variables.get(name)) if operator.startswith(":") else name in variables
    word = rest.removeprefix(operator)
    if operator.endswith("+"):
        return text(word, variables, place, depth + 1) if there else ""
    if there:
        return variables[name]
    given = text(word, variables, place, depth + 1)
    if operator.endswith("?"):
        raise ComposeError(
            place, f"{name} is not set{f': {given}' if given else ''}", f"set {name}, or put it into .env"
        )
    return given


def read_file(path: Path, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Read a .env file; None is a name without a value. Raises `ComposeError`.

    Values in single quotes are taken as they are; in others `$NAME` means what was set before, in the file or in
    `environ`, which wins.
    """
    try:
        content = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ComposeError(str(path), (reason or "cannot be read").lower()) from error
    found: dict[str, str | None] = {}
    lines = iter(enumerate(content.splitlines(), 1))
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            raise ComposeError(f"{path}:{number}", f"{line.partition('=')[0]!r} is not a name; write KEY=VALUE")
        name, raw = match[1], match[2]
        while raw and raw[0] in "\"'" and _closing(raw) < 0:
            following = next(lines, None)
            if following is None:
                raise ComposeError(f"{path}:{number}", f"the quotes of {name} are not closed")
            raw = f"{raw}\n{following[1]}"
        known = {key: value for key, value in found.items() if value is not None} | dict(environ)
        found[name] = None if raw is None else _value(raw, known, f"{path}:{number}")
    return found


def _closing(raw: str) -> int:
    index = 1
    while index < len(raw):
        if raw[index] == "\\" and raw[0] == '"':
            index += 1
        elif raw[index] == raw[0]:
            return index
        index += 1
    return -1


def _value(raw: str, variables: Mapping[str, str], place: str) -> str:
    if raw.startswith("'"):
        return raw[1 : _closing(raw)]
    if raw.startswith('"'):
        inner = re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), raw[1 : _closing(raw)])
        return text(inner, variables, place)
    plain = re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].strip()
    return text(plain, variables, place)
