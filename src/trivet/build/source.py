"""Dockerfile text to logical lines: parser directives, comments, continuations, here-documents.

The rules are those of the Dockerfile reference ("Format", "Parser directives", "Here-Documents").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from trivet.build.error import DockerfileError
from trivet.build.word import split_words

MAXIMUM = 4 << 20  # characters; a Dockerfile is written by hand

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"\d*<<(-?)(['\"]?)([^\s<>|&;()'\"]+)\2$")
_WITH_HEREDOC = ("RUN", "COPY", "ADD")


class Heredoc(msgspec.Struct, frozen=True, kw_only=True):
    """A here-document; `expand` is false when its name was quoted, `strip` true for `<<-`."""

    name: str
    content: str
    expand: bool
    strip: bool


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """An instruction as written, `joined` rows of it; `number` is where it begins (1 is the first)."""

    number: int
    text: str
    heredocs: tuple[Heredoc, ...] = ()
    joined: int = 1


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A Dockerfile cut into instructions."""

    file: str
    escape: str
    lines: tuple[Line, ...]
    rows: tuple[str, ...] = ()
    check: str = ""
    empty_continuations: tuple[int, ...] = ()


def read_source(text: str, file: str) -> Source:
    """Cut `text` into instructions; `file` is the name errors will show. Raises `DockerfileError`."""
    if len(text) > MAXIMUM:
        raise DockerfileError(file, 1, f"longer than {MAXIMUM} characters")
    if "\0" in text:
        raise DockerfileError(file, text[: text.index("\0")].count("\n") + 1, "contains a null character")
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    directives, first = _directives(rows, file)
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise DockerfileError(file, 1, f"escape character {escape!r} is neither a backslash nor a backtick")
    lines = tuple(_lines(rows, first, file, escape))
    return Source(
        file=file,
        escape=escape,
        lines=lines,
        rows=tuple(rows),
        check=directives.get("check", ""),
        empty_continuations=tuple(_empty_continuations(rows, lines)),
    )


def _empty_continuations(rows: list[str], lines: tuple[Line, ...]) -> Iterator[int]:
    """Number the empty rows inside instructions."""
    for line in lines:
        for number in range(line.number, line.number + line.joined):
            if not rows[number - 1].strip():
                yield number


def _directives(rows: list[str], file: str) -> tuple[dict[str, str], int]:
    """Read `# key=value` at the top; anything else, an empty line too, ends the directives."""
    found: dict[str, str] = {}
    for index, row in enumerate(rows):
        match = _DIRECTIVE.match(row.strip())
        if match is None or match[1].lower() not in ("escape", "syntax", "check"):
            return found, index
        name = match[1].lower()
        if name in found:
            raise DockerfileError(file, index + 1, f"parser directive {name} is given twice")
        found[name] = match[2]
    return found, len(rows)


def _lines(rows: list[str], index: int, file: str, escape: str) -> Iterator[Line]:
    continued = re.compile(rf"(?:(?<!{re.escape(escape)})|^){re.escape(escape)}[ \t]*$")
    while index < len(rows):
        if _is_void(rows[index]):
            index += 1
            continue
        number = index + 1
        text, index = _join(rows, index, continued)
        joined = index + 1 - number
        heredocs, index = _heredocs(rows, index, file, number, text, escape)
        if text.strip():
            yield Line(number=number, text=text.strip(), heredocs=tuple(heredocs), joined=joined)


def _is_void(row: str) -> bool:
    row = row.strip()
    return not row or row.startswith("#")


def _join(rows: list[str], index: int, continued: re.Pattern[str]) -> tuple[str, int]:
    """Join a row with those it continues on; comments and empty rows in between don't count."""
    parts: list[str] = []
    while index < len(rows):
        row = rows[index]
        index += 1
        if parts and _is_void(row):
            continue
        match = continued.search(row)
        parts.append(row[: match.start()] if match else row)
        if match is None:
            break
    return "".join(parts), index


def _heredocs(rows: list[str], index: int, file: str, number: int, text: str, escape: str) -> tuple[list[Heredoc], int]:
    found = []
    for dash, quote, name in _openings(text, escape):
        content = []
        while True:
            if index >= len(rows):
                raise DockerfileError(file, number, f"here-document {name} is never ended")
            row = rows[index].lstrip("\t") if dash else rows[index]
            index += 1
            if row == name:
                break
            content.append(row + "\n")
        found.append(Heredoc(name=name, content="".join(content), expand=not quote, strip=bool(dash)))
    return found, index


def _openings(text: str, escape: str) -> list[tuple[str, str, str]]:
    """Find the `<<NAME` words of an instruction that may have here-documents."""
    keyword, _, rest = text.strip().partition(" ")
    if keyword.upper() == "ONBUILD":
        keyword, _, rest = rest.strip().partition(" ")
    if keyword.upper() not in _WITH_HEREDOC or "<<" not in rest or rest.lstrip().startswith("["):
        return []
    words = split_words(rest, escape)
    return [(match[1], match[2], match[3]) for match in map(_HEREDOC.match, words) if match]
