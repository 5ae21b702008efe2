"""Path patterns: Go's filepath.Match for COPY, with `**` for .dockerignore.

*  anything but a slash     ?  one character but a slash     [a-z] [^a-z]  a character of a class
**  anything, slashes too (deep patterns only)               \\x  the character x itself
"""

from __future__ import annotations

import re

_MANY, _DEEP, _END, _SLASH = "*", "**/", "**", "/"
_MOST_DEEP = 6  # each `**` multiplies the ways to match; people write one or two


class PatternError(ValueError):
    """A pattern with a class that is never closed, or too costly to match."""


def has_wildcard(path: str) -> bool:
    """Tell whether a COPY source is a pattern."""
    return any(char in path for char in "*?[")


def compile_pattern(pattern: str, *, deep: bool = False) -> re.Pattern[str]:
    """Translate a pattern to a regular expression for the whole path. Raises `PatternError`."""
    tokens = _tokens(pattern, deep)
    if sum(token in (_DEEP, _END) for token, _ in tokens) > _MOST_DEEP:
        raise PatternError(f"pattern {pattern!r} has more than {_MOST_DEEP} '**'")
    return re.compile(_join(tokens), re.DOTALL)


def _join(tokens: list[tuple[str, str]]) -> str:
    """Put the tokens together.

    `*x*` is matched as `(?>[^/]*?x)[^/]*`: the earliest x leaves most to what follows, and an atomic
    group never comes back to try another, so that `*a*a*a*a*b` takes linear time.
    """
    result, index = "", 0
    while index < len(tokens):
        kind, regex = tokens[index]
        if kind != _MANY:
            result, index = result + regex, index + 1
            continue
        end = index + 1
        while end < len(tokens) and tokens[end][0] == "":
            end += 1
        fixed = "".join(part for _, part in tokens[index + 1 : end])
        if end < len(tokens) and tokens[end][0] == _MANY:
            result += f"(?>[^/]*?{fixed})"
        else:
            result += f"[^/]*{fixed}"
        index = end
    return result


def _tokens(pattern: str, deep: bool) -> list[tuple[str, str]]:
    """Cut a pattern into (kind, regular expression); kind "" is one character of fixed width."""
    tokens: list[tuple[str, str]] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*":
            stars = 1
            while pattern[index : index + 1] == "*":
                stars, index = stars + 1, index + 1
            if stars == 1 or not deep:
                tokens.append((_MANY, "[^/]*"))
            elif index == len(pattern):
                tokens.append((_END, ".*"))
            else:
                index += pattern[index] == "/"
                tokens.append((_DEEP, "(?:.*/)?"))
        elif char == "[":
            regex, index = _class(pattern, index)
            tokens.append(("", regex))
        elif char == "?":
            tokens.append(("", "[^/]"))
        elif char == "\\":
            if index == len(pattern):
                raise PatternError(f"pattern {pattern!r} ends with a lone backslash")
            tokens.append(("", re.escape(pattern[index])))
            index += 1
        else:
            tokens.append((_SLASH if char == "/" else "", re.escape(char)))
    return tokens


def _class(pattern: str, index: int) -> tuple[str, int]:
    """Translate what follows a `[`; gives the expression and the index after the `]`."""
    negated = pattern[index : index + 1] == "^"
    index += negated
    ranges: list[str] = []
    while pattern[index : index + 1] != "]" or not ranges:
        low, index = _class_character(pattern, index)
        high = low
        if pattern[index : index + 1] == "-":
            high, index = _class_character(pattern, index + 1)
        if low > high:
            raise PatternError(f"pattern {pattern!r} has a range that runs backwards: {low}-{high}")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"(?:(?!/)[{'^' if negated else ''}{''.join(ranges)}])", index + 1


def _class_character(pattern: str, index: int) -> tuple[str, int]:
    if pattern[index : index + 1] == "\\":
        index += 1
    elif pattern[index : index + 1] in ("-", "]"):
        raise PatternError(f"pattern {pattern!r} has a class that makes no sense")
    if index >= len(pattern):
        raise PatternError(f"pattern {pattern!r} has a class that is never closed")
    return pattern[index], index + 1
